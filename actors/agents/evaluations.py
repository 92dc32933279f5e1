"""Verdicts and checks of a run as log records of its trace: the event `gen_ai.evaluation.result`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opentelemetry.util.types import AttributeValue

from actors.telemetry import conventions as names
from actors.telemetry.tracing import record_log, tracing

Evaluation = tuple[str, float | None, str]
"""Its name, score and label."""


def record_evaluation(type: str, data: Mapping[str, Any], trace: str) -> None:
    """Export an event of a run as the result of an evaluation, if it is one. What was judged is content, so
    the explanation comes only where content is recorded."""
    if tracing.logs is None or (found := _evaluation(type, data)) is None:
        return
    name, score, label = found
    attributes: dict[str, AttributeValue] = {names.EVALUATION_NAME: name, names.SPAN_KIND: names.EVALUATOR}
    if score is not None:
        attributes[names.EVALUATION_SCORE_VALUE] = score
    if label:
        attributes[names.EVALUATION_SCORE_LABEL] = label
    if tracing.content is not None:
        text = json.dumps(dict(data), ensure_ascii=False, default=str)
        attributes[names.EVALUATION_EXPLANATION] = tracing.content.redact(text)
    record_log(names.EVALUATION_RESULT, trace, attributes)


def _evaluation(type: str, data: Mapping[str, Any]) -> Evaluation | None:
    if type == "verdict":  # the critic's, 1 to 10
        return "critic", float(data.get("score", 0)), "pass" if data.get("passes") else "fail"
    if type == "vote":
        return "vote", float(data.get("agreement", 0)), ""
    if type == "debate_round":
        return "debate", float(data.get("agreement", 0)), str(data.get("over", ""))[:80]
    if type == "grounding":
        claims = int(data.get("claims", 0))
        unsupported = int(data.get("unsupported", 0)) + len(data.get("wrong", ()))
        score = max(0.0, 1 - unsupported / claims) if claims else None
        return "grounding", score, "fail" if unsupported else "pass"
    if type == "code":
        tried, passed = int(data.get("examples", 0)), int(data.get("passed", 0))
        good = bool(data.get("parses")) and passed == tried
        return "code", passed / tried if tried else None, "pass" if good else "fail"
    if type == "arithmetic":
        return "arithmetic", None, "fail" if data.get("corrections") else "pass"
    return None
