"""Runs a download in a child process that reports progress and dies with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actors.child_server.process import tied_to_parent

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessResult:
    """The exit code and the output of a child."""

    code: int
    output: str
    errors: str


def run(
    script: str,
    arguments: list[str],
    *,
    watched: Path,
    on_bytes: Callable[[int], None],
    environment: dict[str, str],
) -> ProcessResult:
    """Run the Python `script` in this interpreter's environment until it ends.

    `on_bytes` is called ten times a second with the size of all files under `watched`. Blocks; an exception
    (also KeyboardInterrupt) kills the child.
    """
    command = tied_to_parent([sys.executable, "-P", "-c", script, *arguments])
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=os.environ | environment,
        )
        try:
            while True:
                try:
                    code = process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    on_bytes(tree_bytes(watched))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        errors.seek(0)
        return ProcessResult(
            code=code,
            output=output.read().decode(errors="replace"),
            errors=errors.read().decode(errors="replace"),
        )


def tree_bytes(folder: Path) -> int:
    """The size of all files below `folder`, which may change concurrently."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                continue
    return total
