"""What a run tells beside its answer, cut to what a message can hold."""

from __future__ import annotations

import pytest
from pydantic_core import PydanticSerializationError

from orchestration.errors import PayloadTooLarge
from orchestration.fitting import MAX_END_BYTES, fitting
from orchestration.messages import Finish, RunEnd, Step, ToolCall

END = RunEnd(finish=Finish(reason="stop", node="n"))


def size(ended: RunEnd) -> int:
    return len(ended.model_dump_json().encode())


def test_an_end_that_fits_stays_as_it_is() -> None:
    steps = (Step(name="a", agent="x", text="t" * 100_000),)
    ended = END.model_copy(update={"steps": steps, "report": {"votes": ["a"]}})
    assert fitting(ended) is ended


@pytest.mark.parametrize(
    "large",
    [
        {"steps": tuple(Step(name=f"s{n}", agent="x", text="ä" * 1_000_000) for n in range(12))},
        {"steps": tuple(Step(name=f"s{n}", agent="x", text="t" * 600) for n in range(20_000))},
        {"report": {"votes": ["v" * 1_000_000] * 20}},
        {"report": {"votes": [{"text": "v"}] * 2_000_000}},
        {"report": {"deep": {"k" * 5_000_000: 1}}},
        {"finish": END.finish.model_copy(update={"notes": ("n" * 9_000_000,)})},
    ],
    ids=["long steps", "many steps", "long votes", "many votes", "long key", "long note"],
)
def test_steps_report_and_notes_are_cut_to_the_limit_and_a_note_says_so(large: dict[str, object]) -> None:
    ended = END.model_copy(update=large)
    cut = fitting(ended)
    assert size(cut) <= MAX_END_BYTES
    note = f"the end of the run has {size(ended)} bytes, above the limit of {MAX_END_BYTES}"
    assert note in cut.finish.notes[0]
    assert (cut.finish.reason, cut.finish.node) == ("stop", "n")


def test_what_is_part_of_the_answer_is_never_cut() -> None:
    call = ToolCall(id="c", name="f", arguments="a" * 3_000_000)
    with pytest.raises(PayloadTooLarge, match=f"may have {MAX_END_BYTES}"):
        fitting(RunEnd(finish=Finish(reason="tool_calls", calls=(call,))))


def test_a_report_that_is_no_json_is_an_error() -> None:
    with pytest.raises(PydanticSerializationError):
        fitting(END.model_copy(update={"report": {"thing": object()}}))
