"""A server process that this process starts, restarts and never leaves behind."""

from actors.child_server.lock import FolderLock
from actors.child_server.process import ChildProcess, spawn
from actors.child_server.server import ChildServer

__all__ = ["ChildProcess", "ChildServer", "FolderLock", "spawn"]
