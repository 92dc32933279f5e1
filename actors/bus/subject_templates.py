"""The templates of subjects: a subject without the ids and names in it, for the names of spans."""

from __future__ import annotations

OTHER = "other"
"""The template of a subject that is none of Orchestra's."""
TEMPLATES = (
    "agents.{verb}.orchestra.{cluster}.{agent}",
    "cancel.{client}.{number}",
    "dead.{kind}.{id}",
    "events.replay.{client}.{number}",
    "events.run.{client}.{number}",
    "forecast.arrivals",
    "generations.{priority}.{model}",
    "logs.{level}.{kind}.{caller}.{run}.{trace}",
    "node.{node}.{request}",
    "orchestra.chat",
    "orchestra.chat.cancel",
    "orchestra.{operation}",
    "orchestra.{group}.{operation}",
    "orchestra.{group}.{part}.{operation}",
    "placement.explain.{model}",
    "placement.{report}",
    "process.{process}.{request}",
    "queued.{priority}.{model}",
    "runs.{priority}.{pattern}",
    "runs.{priority}.{pattern}.{caller}",
    "settings.followers",
    "stream.{client}.{number}",
    "stream_handoff.{client}.{number}",
    "stream_replay.{client}.{number}",
    "trace.nats.{process}",
    "webhooks.{job}",
    "$KV.{bucket}.{key}",
)
_OPEN = {"_INBOX": "_INBOX.{inbox}", "$JS": "$JS.{request}", "$SRV": "$SRV.{request}"}
"""Families of subjects of any length, by their first token."""
_PLAIN = {"generate", "drain", "load", "unload", "stop", "ping", "prompt", "step", "status", "hb"}
"""Words that stay where a template has `{request}` or `{verb}`."""


def _by_length() -> dict[tuple[str, int], list[list[str]]]:
    found: dict[tuple[str, int], list[list[str]]] = {}
    for template in TEMPLATES:
        tokens = template.split(".")
        found.setdefault((tokens[0], len(tokens)), []).append(tokens)
    return found


_TOKENS = _by_length()


def subject_template(subject: str) -> str:
    """For example `generations.{priority}.{model}`; `OTHER` for a subject that is not Orchestra's. The number
    of results is fixed."""
    tokens = subject.split(".")
    for template in _TOKENS.get((tokens[0], len(tokens)), ()):
        if all(part == token or part[0] == "{" for part, token in zip(template, tokens, strict=True)):
            named = zip(template, tokens, strict=True)
            return ".".join(
                token if part in ("{request}", "{verb}") and token in _PLAIN else part
                for part, token in named
            )
    return _OPEN.get(tokens[0], OTHER)
