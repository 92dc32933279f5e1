"""How a stream is handed to another writer: the question to its reader, and the answer."""

from __future__ import annotations

from orchestration.messages.wire import Wire


class HandoffRequest(Wire):
    """Asks who reads a stream how it goes on: see `actors.streams.client`. While something was read of it
    the last `quiet_s` seconds its writer is taken to be alive.

    With `tell`, a second writer may race the first one, unless something was read already: who came first
    is published there, as the second's name or as nothing.
    """

    quiet_s: float = 0.0
    tell: str = ""
    attempt: int = 0
    """The delivery that whoever asks has of the work; a later one than its is at it where the answer says
    `superseded`. 0 where it cannot be told."""
    peek: bool = False
    """Only tell whether the writer was heard of within `quiet_s`, and as `seq` the number of its events."""


class StreamPosition(Wire):
    """What was read of a stream, and who may write on: nobody but `writer`, from event `seq` on.

    With `alive`, who wrote until now goes on, and nothing has changed. Not `open`: nobody wants it any more.
    `superseded`: a later delivery of the work has been taken up, and this one is to be left alone.
    """

    open: bool = True
    alive: bool = False
    superseded: bool = False
    text: str = ""
    tokens: int = 0
    seq: int = 0
    writer: str = ""
