"""Cuts the steps and the report of a run to what one message can hold.

The answer itself is streamed in pieces; its end carries the text of every step and the pattern's report,
which grow with the number of steps and the length of what they said.
"""

from __future__ import annotations

from typing import Any

from orchestration.errors import PayloadTooLarge
from orchestration.messages import Finish, RunEnd, Step

MAX_END_BYTES = 2 * 2**20
"""Maximum bytes of the end of a run, as JSON. It has to fit into a message beside a job's answer."""
MAX_STEP_CHARACTERS = 64 * 1024
"""Maximum characters of a step's text in a progress event."""
_CUTS = (65_536, 16_384, 4_096, 1_024, 256, 64)
"""Limits that are tried in order: characters of each text, and entries of each list."""


def fitting(ended: RunEnd, limit: int = MAX_END_BYTES) -> RunEnd:
    """`ended` with its step texts, notes and report cut until it has at most `limit` bytes; a note says so.

    Raises `PayloadTooLarge` where that is not enough: its tool calls, which are part of the answer, are never
    cut. Raises pydantic's `PydanticSerializationError` for a report that is no JSON.
    """
    size = _size(ended)
    if size <= limit:
        return ended
    for most in _CUTS:
        note = (
            f"the end of the run has {size} bytes, above the limit of {limit}: "
            f"texts of steps and report are cut to {most} characters each"
        )
        cut = {
            "steps": tuple(shortened_step(step, most) for step in ended.steps[:most]),
            "finish": _with_notes(ended, note, *shortened(ended.finish.notes, most)),
            "report": shortened(ended.report, most),
        }
        smaller = ended.model_copy(update=cut)
        if _size(smaller) <= limit:
            return smaller
    note = f"its end has {size} bytes, and may have {limit}: steps and report are left out"
    bare = ended.model_copy(update={"steps": (), "finish": _with_notes(ended, note), "report": {}})
    if _size(bare) <= limit:
        return bare
    raise PayloadTooLarge(f"the end of the run has {size} bytes, and may have {limit} (MAX_END_BYTES)")


def shortened_step(step: Step, most: int = MAX_STEP_CHARACTERS) -> Step:
    """The step with at most so many characters of its text."""
    return step if len(step.text) <= most else step.model_copy(update={"text": shortened(step.text, most)})


def shortened(value: Any, most: int) -> Any:
    """JSON with at most `most` characters in each text, and entries in each list and object."""
    if isinstance(value, str):
        return value if len(value) <= most else f"{value[:most]}… ({len(value) - most} more characters)"
    if isinstance(value, dict):
        return {shortened(key, most): shortened(each, most) for key, each in list(value.items())[:most]}
    if isinstance(value, list | tuple):
        return [shortened(each, most) for each in value[:most]]
    return value


def _with_notes(ended: RunEnd, *notes: str) -> Finish:
    return ended.finish.model_copy(update={"notes": notes})


def _size(ended: RunEnd) -> int:
    return len(ended.model_dump_json().encode())
