"""Runs an untrusted Python program, such as a model's, in a process that can only compute.

It is one process, which shuts itself in before the program's first line (`walls`, `inside`):

- no network: seccomp refuses sockets, and where namespaces are permitted there is no interface either;
- no other process: none is started (no fork, no thread, no exec), signalled, traced or looked into, so
  nothing is left behind, and the end of the process is the end of it all;
- files: Landlock lets it read Python's standard library and what that is linked with. Its own folder, in
  memory and gone with it, is there where mount namespaces are permitted; else it can write nowhere;
- limits on seconds of CPU and of the clock, memory, files, open files, and on what it prints;
- an empty environment, none of our packages, and no capabilities.

Where Landlock or seccomp is missing it is not run at all, and the error says so.

It does not protect against faults of the kernel itself or of the processor (a virtual machine does), against
a program that says what a test wants to hear (values are compared here, but the program made them), or
against its using its share of CPU and memory. It runs as our user, so better not as root. Whether a file
exists outside can be found out. Before Linux 6.2 Landlock does not keep it from emptying files of Python's
library that its user may write.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import actors
from actors.tools.sandbox.child import MAX_CHARS
from actors.tools.sandbox.settings import SandboxSettings
from orchestration.errors import InvalidRequest

_ROOT = str(Path(actors.__file__).parent.parent)
_START = f"import sys; sys.path.insert(0, {_ROOT!r}); from actors.tools.sandbox.child import main; main()"
_LINE_BYTES = 8 * MAX_CHARS
_REASON_CHARS = 500
_CHUNK = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """What a call gave: the `repr` of its value, or None and the error."""

    value: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramResult:
    """One outcome for each call. `error` says why the program itself ended early, '' where it did not."""

    outcomes: tuple[CallResult, ...]
    output: str
    error: str
    own_folder: bool
    """Whether it could write files."""


@dataclass(slots=True)
class _ProcessOutput:
    """The output of a process so far."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    printed: bytearray = field(default_factory=bytearray)
    trouble: str = ""


class Sandbox:
    """Runs programs; at most `concurrency` at the same time, others wait."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self._room = asyncio.Semaphore(settings.concurrency)

    async def run(self, code: str, calls: tuple[str, ...] = ()) -> ProgramResult:
        """Run `code`, then each call in its namespace. Raises `InvalidRequest` where this machine has no
        sandbox. Cancelled, it ends the process."""
        if not sys.platform.startswith("linux"):
            raise InvalidRequest(f"the sandbox needs Linux, and this is {sys.platform}", param="sandbox")
        async with self._room:
            with tempfile.TemporaryDirectory(
                prefix="orchestra-program-", ignore_cleanup_errors=True
            ) as folder:
                collected, code_of_exit = await self._run_process(self._job(code, calls, folder), len(calls))
        return self._result(collected, code_of_exit, len(calls))

    def _job(self, code: str, calls: tuple[str, ...], folder: str) -> bytes:
        limits = self.settings.model_dump(include={"cpu_s", "memory_mb", "files_mb"})
        job = {"code": code, "calls": calls, "folder": folder, "limits": limits, "root": _ROOT}
        return json.dumps(job).encode()

    async def _run_process(self, job: bytes, calls: int) -> tuple[_ProcessOutput, int]:
        process = await self._start()
        collected = _ProcessOutput()
        try:
            async with asyncio.timeout(self.settings.wall_s):
                await self._communicate(process, job, collected, calls)
                return collected, await process.wait()
        except TimeoutError:
            collected.trouble = f"took longer than wall_s {self.settings.wall_s:g}"
            return collected, 0
        finally:
            await _end(process)

    async def _start(self) -> asyncio.subprocess.Process:
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", "-B", "-X", "utf8", "-c", _START, str(os.getpid())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={},
                cwd="/",
                start_new_session=True,
            )
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:  # it may be there already
            await _end(await starting)
            raise

    async def _communicate(
        self, process: asyncio.subprocess.Process, job: bytes, collected: _ProcessOutput, calls: int
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(job)
        process.stdin.close()
        printed = self._read_output(process.stderr, process, collected)
        async with asyncio.TaskGroup() as both:
            both.create_task(printed)
            both.create_task(self._read_reports(process.stdout, process, collected, calls))

    async def _read_output(
        self, stream: asyncio.StreamReader, process: asyncio.subprocess.Process, collected: _ProcessOutput
    ) -> None:
        while chunk := await stream.read(_CHUNK):
            collected.printed += chunk
            if len(collected.printed) > self.settings.output_bytes:
                collected.trouble = f"printed more than output_bytes {self.settings.output_bytes}"
                _kill(process)
                return

    async def _read_reports(
        self,
        stream: asyncio.StreamReader,
        process: asyncio.subprocess.Process,
        collected: _ProcessOutput,
        calls: int,
    ) -> None:
        """Read what the process reports. The program could write there too: it is limited and validated."""
        rest, max_bytes = b"", _LINE_BYTES * (calls + 4)
        total = 0
        while chunk := await stream.read(_CHUNK):
            total += len(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            with suppress(ValueError, RecursionError):
                collected.lines += [line for line in map(json.loads, whole) if isinstance(line, dict)]
            if total > max_bytes:
                collected.trouble = "reported more than its calls can give"
                _kill(process)
                return

    def _result(self, collected: _ProcessOutput, code_of_exit: int, calls: int) -> ProgramResult:
        for line in collected.lines[:1]:
            if "refused" in line:
                raise InvalidRequest(f"no program is run: {line['refused']}"[:_REASON_CHARS], param="sandbox")
        output = bytes(collected.printed[: self.settings.output_bytes]).decode(errors="replace")
        if not collected.lines and not collected.trouble:
            raise InvalidRequest(
                f"no program is run: the sandbox did not start: {output[-_REASON_CHARS:]}", param="sandbox"
            )
        broken = next((str(line["broken"]) for line in collected.lines if "broken" in line), "")
        outcomes = [_outcome(line) for line in collected.lines if "value" in line][:calls]
        error = broken or collected.trouble
        if not error and not any("done" in line for line in collected.lines):
            error = self._how_it_ended(code_of_exit)
        missing = CallResult(error=error or "it gave no value")
        return ProgramResult(
            outcomes=(*outcomes, *[missing] * (calls - len(outcomes))),
            output=output,
            error=error,
            own_folder=any(line.get("own") is True for line in collected.lines[:1]),
        )

    def _how_it_ended(self, code: int) -> str:
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"took more than cpu_s {self.settings.cpu_s} of CPU"
        if code == -signal.SIGXFSZ:
            return f"wrote more than files_mb {self.settings.files_mb} into a file"
        if code < 0:
            return f"was ended by signal {signal.Signals(-code).name}"
        return f"ended itself with code {code}"


def _outcome(line: dict[str, Any]) -> CallResult:
    value, error = line.get("value"), str(line.get("error", ""))[:MAX_CHARS]
    if not isinstance(value, str):
        return CallResult(error=error or "it gave no value")
    return CallResult(value=value[:MAX_CHARS], error=error)


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the process, and read its pipes to their ends, which closes them."""
    if process.returncode is None:
        _kill(process)
    await process.communicate()
