"""The reference page of run events: type, fields, and when it comes."""

from __future__ import annotations

from actors.cli.reference.source import fields_of, one_line, table, type_name
from orchestration.run_events import RunEvent

HEAD = """# Run events

A run publishes events: over HTTP as server-sent events of `GET /v1/runs/{id}/events`, over NATS as JSON
objects, one a line, on `events.run.<id>`. Every event has the fields `run`, `seq` (rises within a run), `at`
(Unix time in seconds) and `type`. A second `started` says that another coordinator has taken the run over: it
repeats what was done before. A program that does not know the type of an event can
skip it: patterns of your own may send other types than these. An event that is too large is sent with its
long texts shortened, and with its original size in bytes in the field `cut`.
"""


def page() -> str:
    """The page as Markdown."""
    common = set(RunEvent.model_fields)
    parts = [HEAD]
    for event in RunEvent.__subclasses__():
        name = event.model_fields["type"].default
        rows = [
            (f"`{field}`", type_name(info.annotation), text)
            for field, info, text in fields_of(event)
            if field not in common
        ]
        fields = table(("field", "type", "what it is"), rows)
        parts.append(f"\n## {name}\n\n{one_line(event.__doc__)}\n\n{fields}")
    return "".join(parts)
