"""Results on disk: whole after any kill, and never mixed with those of another evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.evaluation.errors import OtherResults, ResultsStorage
from actors.evaluation.spec import Spec
from actors.evaluation.store import RESULTS, open_results
from orchestration.errors import NoNode
from orchestration.evaluation.result import Result

SPEC = Spec(dataset="d", fingerprint="f", questions=2, budget=100)
RIGHT = Result(pattern="single", question="1", text="5", answer="5", score=1.0, tokens=30)
FAILED = Result(pattern="single", question="2", error=NoNode("nobody").body())


def test_results_are_there_again_and_what_failed_counts_as_not_answered(tmp_path: Path) -> None:
    with open_results(tmp_path / "new" / "folder", SPEC, Result, resume=False) as results:
        results.add(RIGHT)
        results.add(FAILED)
    with open_results(tmp_path / "new" / "folder", SPEC, Result, resume=True) as results:
        assert results.of(("single",)) == [RIGHT, FAILED]
        assert results.is_answered("single", "1")
        assert not results.is_answered("single", "2")
        assert not results.is_answered("debate", "1")
        results.add(FAILED.model_copy(update={"error": None}))
    with open_results(tmp_path / "new" / "folder", SPEC, Result, resume=True) as results:
        assert results.is_answered("single", "2")
        assert len(results.of(("single",))) == 2


@pytest.mark.parametrize("cut", [1, 20])
def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path, cut: int) -> None:
    with open_results(tmp_path, SPEC, Result, resume=False) as results:
        results.add(RIGHT)
        results.add(FAILED)
    file = tmp_path / RESULTS
    file.write_bytes(file.read_bytes()[:-cut])
    with open_results(tmp_path, SPEC, Result, resume=True) as results:
        assert results.of(("single",)) == [RIGHT]
        results.add(FAILED)
    with open_results(tmp_path, SPEC, Result, resume=True) as results:
        assert results.of(("single",)) == [RIGHT, FAILED]


def test_a_kill_before_the_first_line_was_whole_leaves_a_new_beginning(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"spec": {"data')
    with open_results(tmp_path, SPEC, Result, resume=False) as results:
        results.add(RIGHT)
    with open_results(tmp_path, SPEC, Result, resume=True) as results:
        assert results.of(("single",)) == [RIGHT]


def test_results_of_other_conditions_are_refused_naming_the_difference(tmp_path: Path) -> None:
    with open_results(tmp_path, SPEC, Result, resume=False) as results:
        results.add(RIGHT)
    with (
        pytest.raises(OtherResults, match="continue with --resume"),
        open_results(tmp_path, SPEC, Result, resume=False),
    ):
        pass
    other = SPEC.model_copy(update={"budget": 200})
    with (
        pytest.raises(OtherResults, match="its budget is 100, here it is 200"),
        open_results(tmp_path, other, Result, resume=True),
    ):
        pass


def test_two_evaluations_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with (
        open_results(tmp_path, SPEC, Result, resume=False),
        pytest.raises(OtherResults, match="another evaluation is writing"),
        open_results(tmp_path, SPEC, Result, resume=True),
    ):
        pass


def test_damaged_results_and_a_folder_that_cannot_be_made_are_told(tmp_path: Path) -> None:
    with open_results(tmp_path, SPEC, Result, resume=False) as results:
        results.add(RIGHT)
    file = tmp_path / RESULTS
    file.write_text(file.read_text() + "junk\n")
    with (
        pytest.raises(OtherResults, match="line 3 is damaged"),
        open_results(tmp_path, SPEC, Result, resume=True),
    ):
        pass
    with (
        pytest.raises(ResultsStorage, match="cannot write"),
        open_results(file / "below", SPEC, Result, resume=False),
    ):
        pass
