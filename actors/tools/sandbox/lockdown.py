"""The walls of the sandbox, put up from inside: namespaces, Landlock, seccomp, limits.

Sources: unshare(2), user_namespaces(7), landlock(7), capabilities(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Iterable

from actors.tools.sandbox.syscalls import known, refuse_calls

_NEW_MOUNTS, _NEW_HOST_NAME, _NEW_IPC, _NEW_USER, _NEW_NETWORK = (
    0x20000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x40000000,
)
_PRIVATE = 0x44000  # MS_REC | MS_PRIVATE
_HARMLESS = 0xE  # MS_NOSUID | MS_NODEV | MS_NOEXEC
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ = 0b1100  # files, folders
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights Landlock knows, by its version; 16 from the fifth on."""


class NoWalls(Exception):
    """This machine cannot hold a program; the text says what is missing."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


libc = ctypes.CDLL(None, use_errno=True)


def put_up(folder: str, *, cpu_s: int, memory_mb: int, files_mb: int) -> bool:
    """Shut this process in, for good. Returns whether it may write into `folder`, which is in memory then and
    goes with the process; it needs namespaces. Raises `NoWalls` where one of the others is missing."""
    machine = os.uname().machine
    if not known(machine):
        raise NoWalls(f"there is no seccomp filter for {machine} machines")
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        raise NoWalls("the kernel has no Landlock (Linux 5.13 and later, with landlock among its lsm=)")
    own = _apart(folder, files_mb)
    _without_privileges()
    _limit(cpu_s, memory_mb, files_mb)
    try:
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "privileges cannot be given up")
        _see_only(readable(), folder if own else "", version)
        refuse_calls(libc, machine)
    except OSError as error:
        raise NoWalls(str(error)) from error
    _prove()
    return own


def readable() -> list[str]:
    """What a Python program needs of the file system: its standard library and what that is linked with."""
    linked = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")
    return [path for path in (os.path.dirname(os.__file__), *linked) if os.path.exists(path)]


def _apart(folder: str, files_mb: int) -> bool:
    """Leave for namespaces of our own, without any network, `folder` being a file system in memory. False
    where that is not permitted: Landlock and seccomp hold alone then."""
    user, group = os.getuid(), os.getgid()
    spaces = _NEW_NETWORK | _NEW_MOUNTS | _NEW_IPC | _NEW_HOST_NAME
    if libc.unshare(spaces | _NEW_USER) != 0:
        return False
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
        options = f"size={files_mb}m,nr_inodes=1k,mode=0700,uid={user},gid={group}"
        private = libc.mount(b"none", b"/", None, _PRIVATE, None) == 0
        mounted = private and not libc.mount(b"tmpfs", folder.encode(), b"tmpfs", _HARMLESS, options.encode())
        if mounted:
            os.chdir(folder)
        return mounted
    except OSError:
        return False


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _without_privileges() -> None:
    """Give up all capabilities, those in our own namespaces too: root is the owner of root's files then, no
    more."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise NoWalls(f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}")
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _limit(cpu_s: int, memory_mb: int, files_mb: int) -> None:
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_AS, memory_mb << 20, memory_mb << 20),
        (resource.RLIMIT_FSIZE, files_mb << 20, files_mb << 20),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_NPROC, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def _see_only(paths: Iterable[str], own: str, version: int) -> None:
    """Restrict files by Landlock: read below `paths`, anything below `own`, nothing elsewhere."""
    every = (1 << _RIGHTS.get(version, 16)) - 1
    rules = _Ruleset(every, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock makes no ruleset")
    for path in paths:
        _allow(ruleset, path, _READ if os.path.isdir(path) else 0b100)
    if own:
        _allow(ruleset, own, every & ~1)  # nothing there is executed
    if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "Landlock does not restrict this process")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _Beneath(rights, opened)
        if libc.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0) != 0:
            raise OSError(ctypes.get_errno(), f"Landlock takes no rule for {path}")
    finally:
        os.close(opened)


def _prove() -> None:
    """Lean on the walls once, before a program does."""
    import socket

    def forked() -> None:
        if os.fork() == 0:
            os._exit(0)

    attempts: dict[str, Callable[[], None]] = {
        "open a socket": lambda: socket.socket().close(),
        "start a process": forked,
        "read /etc/passwd": lambda: open("/etc/passwd").close(),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        raise NoWalls(f"a program in it could {what}")
