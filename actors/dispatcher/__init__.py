"""Generations from the queue onto nodes."""

from actors.dispatcher.dispatcher import Dispatcher
from actors.dispatcher.settings import DispatcherSettings

__all__ = ["Dispatcher", "DispatcherSettings"]
