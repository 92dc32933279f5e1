"""How a stream is handed off to another writer: the request to its reader, and the reader's answer."""

from __future__ import annotations

from pydantic import Field

from orchestration.messages.work import Continuation
from orchestration.wire import Wire


class HandoffRequest(Wire):
    """Asks the reader of a stream for its position, and for the right to continue it.

    The writer is left alone, and the answer is `alive`, if the reader has received something from it within
    the last `quiet_s` seconds.
    """

    quiet_s: float = 0.0
    winner_subject: str = Field(default="", pattern=r"^[!-~]{0,1024}$")
    """Set to let a second writer race the first one. The reader publishes the winner's name here: the second
    writer's, or ''. Nothing of the stream may have been read yet."""
    attempt: int = 0
    """The delivery number of the work at the process that asks; 0 if unknown. The answer is `superseded` if a
    later delivery has been taken up."""
    peek: bool = False
    """Only report whether the writer is alive, and the number of its `events`; change nothing."""


class StreamPosition(Wire):
    """What the reader has of a stream, for the process that asked with a `HandoffRequest`."""

    open: bool = True
    """False if nobody wants the answer any more."""
    alive: bool = False
    """The present writer continues, and nothing has changed."""
    superseded: bool = False
    """A later delivery of the work has been taken up; this one must be dropped."""
    events: int = 0
    """With `peek`: the number of events that the reader has from the present writer."""
    continuation: Continuation = Continuation()
    """Only the writer that is named in it may continue the stream. Without a name, the work starts anew."""
