"""Becomes another program that dies with its parent, even when the parent is killed with SIGKILL.

    python -I -S die_with_parent.py PARENT_PID LIFELINE_FD PROGRAM [ARGUMENT]…

It runs as a script. It arranges for its own death and then execs PROGRAM, so it costs a few milliseconds at
the start and no memory afterwards. `process.tied_to_parent` makes the command line.

On Linux the kernel does it: `prctl(PR_SET_PDEATHSIG, SIGKILL)` outlives exec, and needs no watcher. It is set
here and not in `preexec_fn`, which runs Python between fork and exec in a process with threads and may
deadlock; nor by util-linux's `setpriv --pdeathsig`, which not every machine has. The signal comes when the
*thread* that forked ends, so a parent must start this from a thread that lasts.

Elsewhere (macOS, BSD), or when LIFELINE_FD is not -1, a `sh` of about 1 MB watches. It reads from
LIFELINE_FD, a pipe whose other end only the parent holds. When the parent dies the kernel closes that end,
the read fails and `sh` kills the program. A parent that saw its child end writes one line first, so that `sh`
ends without killing another process that got the same process id.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def use_kernel(parent: int) -> None:
    """Have the kernel send SIGKILL when the parent dies. Linux only. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def use_pipe(lifeline: int) -> None:
    """Start a `sh` that kills this process when the pipe `lifeline` closes without a line."""
    me = str(os.getpid())
    if os.fork() == 0:  # safe here: this process has one thread
        os.dup2(lifeline, 0)
        # "$0" is the first argument after the script: the process to kill.
        os.execv("/bin/sh", ["/bin/sh", "-c", 'read -r line || kill -KILL "$0"', me])
    os.close(lifeline)


def main(arguments: list[str]) -> None:
    parent, lifeline, program = int(arguments[0]), int(arguments[1]), arguments[2]
    if lifeline < 0:
        use_kernel(parent)
    else:
        use_pipe(lifeline)
    os.execv(program, arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
