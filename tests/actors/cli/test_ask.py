"""What `orchestra ask` makes of the chunks of a run."""

from __future__ import annotations

from actors.cli.ask import PrintedAnswer, _report


def test_the_report_holds_the_corrected_text_alone_and_the_usage_by_model() -> None:
    answer = PrintedAnswer(run="a.1", usage={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12})
    for text, replaces in (("It is", 0), (" 7.", 0), ("\n\nCorrection: It is", 14), (" 8.", 0)):
        answer.add(text, replaces)
    discarded = {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}
    answer.last = {"usage": {"by_model": {"m": answer.usage}, "discarded": discarded}}
    report = _report(answer, "orchestra/ensemble")
    assert report["answer"] == "It is 8."
    assert report["usage"]["total_tokens"] == 12
    assert report["usage"]["by_model"] == {"m": answer.usage}
    assert report["usage"]["discarded"] == discarded
    assert _report(PrintedAnswer(usage={"total_tokens": 5}), "m")["usage"] == {
        "total_tokens": 5
    }  # without a run
