"""Becomes another program that cannot outlive its parent, not even after SIGKILL of the parent.

    python -I -S die_with_parent.py PARENT_PID LIFELINE_FD PROGRAM [ARGUMENT]…

Run as a file, never imported by a parent. It arranges for its own death and then execs PROGRAM, so it
costs a few milliseconds once and no memory afterwards.

On Linux the kernel does it: `prctl(PR_SET_PDEATHSIG, SIGKILL)` outlives exec, and needs nobody to watch.
It is set here and not in `preexec_fn`, which runs Python between fork and exec in a process with threads
and may deadlock; nor by util-linux's `setpriv --pdeathsig`, which not every machine has. The signal comes
when the *thread* that forked ends, so a parent must start this from a thread that lasts.

Elsewhere (macOS, BSD), or when LIFELINE_FD is not -1, a `sh` of about 1 MB watches: it reads from
LIFELINE_FD, a pipe whose other end only the parent holds. At the parent's death the kernel closes that
end, the read fails and `sh` kills the program. A parent that saw its child end writes one line first, so
that `sh` leaves without killing a stranger that got the same process id.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent_by_kernel(parent: int) -> None:
    """Ask the kernel for SIGKILL at the parent's death. Linux only. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def die_with_parent_by_pipe(lifeline: int) -> None:
    """Leave a `sh` behind that kills this process id when the pipe `lifeline` closes without a line."""
    me = str(os.getpid())
    if os.fork() == 0:  # safe here: this process has one thread
        os.dup2(lifeline, 0)
        # "$0" is the first argument after the script: the process to kill.
        os.execv("/bin/sh", ["/bin/sh", "-c", 'read -r line || kill -KILL "$0"', me])
    os.close(lifeline)


def main(arguments: list[str]) -> None:
    parent, lifeline, program = int(arguments[0]), int(arguments[1]), arguments[2]
    if lifeline < 0:
        die_with_parent_by_kernel(parent)
    else:
        die_with_parent_by_pipe(lifeline)
    os.execv(program, arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
