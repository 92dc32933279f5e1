"""The reference page of run events: type, fields, and when it comes."""

from __future__ import annotations

from actors.cli.reference.source import class_docs, one_line, table, type_name
from orchestration import run_events
from orchestration.run_events import RunEvent

HEAD = """# Run events

A run publishes events: over HTTP as server-sent events of `GET /v1/runs/{id}/events`, over NATS as JSON
objects, one a line, on `events.run.<id>`. Every event has the fields `run`, `seq` (rises within a run), `at`
(Unix time in seconds) and `type`.
"""


def page() -> str:
    """The page as Markdown."""
    common = set(RunEvent.model_fields)
    parts = [HEAD]
    for event in RunEvent.__subclasses__():
        docs = class_docs(event)
        name = event.model_fields["type"].default
        rows = [
            (f"`{field}`", type_name(info.annotation), docs.get(field, ""))
            for field, info in event.model_fields.items()
            if field not in common
        ]
        fields = table(("field", "type", "what it is"), rows)
        parts.append(f"\n## {name}\n\n{one_line(event.__doc__)}\n\n{fields}")
    parts.append(f"\n## Types of single patterns\n\n{one_line(run_events.__doc__)}\n")
    return "".join(parts)
