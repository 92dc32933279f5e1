"""What a program in the sandbox cannot ask of the kernel: seccomp's filter, as a classic BPF program.

Numbers are of Linux's `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`; the
filter is as in the kernel's `Documentation/userspace-api/seccomp_filter.rst`.
"""

from __future__ import annotations

import ctypes
import errno

PR_SET_SECCOMP = 22
FILTER_MODE = 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _GREATER, _RETURN = 0x20, 0x15, 0x25, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_HIGHEST = 452
"""Later calls are answered as a kernel does that does not have them."""
_CLONE3 = 435
"""libc goes on with clone, which is refused, when this one does not exist."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# pidfd_send_signal, io_uring_*, open_tree to fspick, pidfd_open, pidfd_getfd, process_madvise, mount_setattr,
# quotactl_fd, memfd_secret, process_mrelease, fchmodat2: one number on all machines
_EVERYWHERE = frozenset((424, *range(425, 428), *range(428, 434), 434, 438, 440, 442, 443, 447, 448, 452))

_REFUSED = {
    "x86_64": _EVERYWHERE.union(
        (41, 42, 49, 50),  # socket, connect, bind, listen
        (56, 57, 58, 59, 322),  # clone, fork, vfork, execve, execveat
        (62, 129, 200, 234, 297),  # kill, rt_sigqueueinfo, tkill, tgkill, rt_tgsigqueueinfo
        (101, 310, 311, 312),  # ptrace, process_vm_readv, process_vm_writev, kcmp
        (29, 30, 64, 68, 240, 319),  # shmget, shmat, semget, msgget, mq_open, memfd_create: memory that stays
        (76, 90, 91, 92, 93, 94, 260, 268),  # truncate, chmod and chown: what Landlock leaves
        (132, 188, 189, 190, 197, 198, 199, 235, 261, 280),  # utime and xattr
        (105, 106, 109, 112, 113, 114, 116, 117, 119, 122, 123, 126),  # set*id, setsid, setgroups, capset
        (135, 141, 142, 144, 160, 203, 251, 302, 314),  # personality, priorities, limits
        (103, 153, 155, 159, 161, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 179, 227, 305),
        # syslog, vhangup, pivot_root, adjtimex, chroot, acct, settimeofday, mount to ioperm, quotactl, clocks
        (175, 176, 246, 313, 320),  # modules, kexec
        (248, 249, 250, 272, 298, 300, 303, 304, 308, 321, 323),
        # keys, unshare, perf_event_open, fanotify_init, file handles, setns, bpf, userfaultfd
    ),
    "aarch64": _EVERYWHERE.union(
        (198, 200, 201, 203),
        (220, 221, 281),
        (129, 130, 131, 138, 240),
        (117, 270, 271, 272),
        (180, 186, 190, 194, 196, 279),
        (45, 52, 53, 54, 55),
        (5, 6, 7, 14, 15, 16, 88),
        (91, 143, 144, 145, 146, 147, 149, 151, 152, 154, 157, 159),
        (30, 92, 118, 119, 122, 140, 164, 261, 274),
        (39, 40, 41, 51, 58, 60, 89, 112, 116, 142, 161, 162, 170, 171, 224, 225, 266),
        (104, 105, 106, 273, 294),
        (97, 217, 218, 219, 241, 262, 264, 265, 268, 280, 282),
    ),
}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def known(machine: str) -> bool:
    """Whether there is a filter for that kind of machine, as `os.uname` calls it."""
    return machine in _ARCHITECTURES


def refuse_calls(libc: ctypes.CDLL, machine: str) -> None:
    """Install the filter in this process, for good. Raises `OSError` when the kernel does not take it."""
    steps = [
        _Instruction(_LOAD, 0, 0, _ARCHITECTURE),
        _Instruction(_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        _Instruction(_RETURN, 0, 0, _KILL),  # calls of a 32-bit program have other numbers
        _Instruction(_LOAD, 0, 0, _NUMBER),
        *_when(_GREATER, _HIGHEST, errno.ENOSYS),
        *_when(_EQUAL, _CLONE3, errno.ENOSYS),
    ]
    for number in sorted(_REFUSED[machine]):
        steps += _when(_EQUAL, number, errno.EPERM)
    steps.append(_Instruction(_RETURN, 0, 0, _ALLOW))
    program = _Program(len(steps), (_Instruction * len(steps))(*steps))
    if libc.prctl(PR_SET_SECCOMP, FILTER_MODE, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def _when(test: int, number: int, error: int) -> tuple[_Instruction, _Instruction]:
    return _Instruction(test, 0, 1, number), _Instruction(_RETURN, 0, 0, _ERRNO | error)
