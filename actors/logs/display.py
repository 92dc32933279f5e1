"""Shows events to people: one line each, or a run as a story with the time since its begin."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import click

from actors.logs.reader import StoredEvent
from orchestration.log_events import LogEvent, LogLevel

COLOURS = {LogLevel.DEBUG: "bright_black", LogLevel.WARNING: "yellow", LogLevel.ERROR: "red"}
NAME_WIDTH = 19
MAX_TEXT = 400
_QUIET = {
    "route",
    "status",
    "outcome",
    "protocol",
    "duration_s",
    "error_text",
    "cut",
    "output_tokens",
    "slow",
}
"""Facts that the sentence of an event has already, or that a line has no room for."""


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """The text in one line, without characters that would control a terminal."""
    shown = "".join(each if each.isprintable() else " " for each in text[:limit])
    return shown + ("…" if len(text) > limit else "")


def event_line(event: LogEvent, *, since: float | None = None) -> str:
    """The event in one line; with `since` its time is relative to that."""
    if since is None:
        moment = datetime.fromtimestamp(event.at)
        today = moment.date() == datetime.fromtimestamp(time.time()).date()
        shown = (
            f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}" if today else f"{moment:%Y-%m-%d %H:%M:%S}"
        )
    else:
        shown = f"{event.at - since:+9.3f} s"
    level = click.style(f"{event.level.upper():7}", fg=COLOURS.get(event.level))
    name = click.style(f"{printable(event.name):{NAME_WIDTH}}", bold=True)
    text = printable(event.message) if event.message else ""
    about = click.style(_about(event, story=since is not None), dim=True)
    return " ".join(part for part in (click.style(shown, dim=True), level, name, text, about) if part)


def event_json(stored: StoredEvent) -> dict[str, Any]:
    """The event for scripts, with its place in the stream."""
    return {"sequence": stored.sequence} | stored.event.model_dump(mode="json", exclude_defaults=True)


def _about(event: LogEvent, *, story: bool) -> str:
    """Who and what the event is about, and its further facts."""
    fields = {"step": event.step, "model": event.model, "node": event.node, "pattern": event.pattern}
    if not story:
        fields |= {"caller": event.caller, "run": event.run}
    fields |= {"from": event.process} if not event.run else {}
    facts = {name: value for name, value in event.data.items() if name not in _QUIET}
    known = {name: value for name, value in (fields | facts).items() if value not in ("", None, 0, False)}
    return printable(" ".join(f"{name}={_value(value)}" for name, value in known.items()))


def _value(value: Any) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
