"""Takes generations from the queues and places them on nodes."""

from actors.dispatcher.dispatcher import Dispatcher
from actors.dispatcher.settings import DispatcherSettings
from actors.dispatcher.snapshot import DispatcherSnapshot

__all__ = ["Dispatcher", "DispatcherSettings", "DispatcherSnapshot"]
