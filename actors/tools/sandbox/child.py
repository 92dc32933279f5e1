"""What runs in the child process: it shuts itself in, then runs the program and says what came of it.

It is started without our packages' dependencies, so nothing but the standard library is imported here. It
reads a `Job` as JSON from stdin and writes a line of JSON for each thing that is known to what was stdout:
`refused`, or `own` once it is shut in; `broken`, or the value and error of each call; `done`.
"""

from __future__ import annotations

import ctypes
import io
import json
import linecache
import os
import sys
import types
from typing import Any

from actors.tools.sandbox.lockdown import NoWalls, put_up

_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
MAX_CHARS = 4_000
"""Maximum characters of a value's `repr`, and of an error."""


def main() -> None:
    """Takes the parent's process id as the argument."""
    job = json.load(sys.stdin.buffer)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace", buffering=1)
    os.dup2(2, 1)
    os.environ["TMPDIR"] = job["folder"]
    try:
        own = put_up(job["folder"], **job["limits"])
    except NoWalls as error:
        _send(channel, refused=str(error))
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        return
    _forget(job["root"])
    _send(channel, own=own)
    _run(job["code"], job["calls"], channel)
    _flush()
    _send(channel, done=True)
    os._exit(0)  # without what the program left to be done at the end


def _forget(root: str) -> None:
    """Take our packages out of the program's sight."""
    sys.path[:] = [path for path in sys.path if path != root]
    for name in [name for name in sys.modules if name.split(".")[0] == "actors"]:
        del sys.modules[name]


def _run(code: str, calls: list[str], channel: io.TextIOWrapper) -> None:
    program = types.ModuleType("program")
    sys.modules["program"] = program
    linecache.cache["<program>"] = (len(code), None, code.splitlines(True), "<program>")
    try:
        exec(compile(code, "<program>", "exec"), program.__dict__)
    except BaseException as error:  # noqa: BLE001 - it may raise whatever it likes, SystemExit too
        _send(channel, broken=_error_text(error))
        return
    for call in calls:
        try:
            value = repr(eval(compile(call, "<example>", "eval"), program.__dict__))
        except BaseException as error:  # noqa: BLE001 - as above
            _send(channel, value=None, error=_error_text(error))
            continue
        if len(value) > MAX_CHARS:
            _send(channel, value=None, error=f"its value has {len(value)} characters, more than {MAX_CHARS}")
        else:
            _send(channel, value=value, error="")


def _error_text(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - its `__str__` is the program's too
        text = type(error).__name__
    return text[:MAX_CHARS].removesuffix(": ")


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the program may have put something else there
        return


def _send(channel: io.TextIOWrapper, **what: Any) -> None:
    channel.write(json.dumps(what) + "\n")
