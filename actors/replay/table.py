"""Shows a replay as a table of accuracies by part of the questions, and a line per other figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from actors.replay.outcome import PatternOutcome, ReplayOutcome
from orchestration.evaluation.panel import HalfShares
from orchestration.evaluation.statistics import LEVEL, Difference, Interval

MAX_CHOICES = 6


def table(outcome: ReplayOutcome) -> Table:
    """Return a table with rows for each pattern, the votes, and each member."""
    rows = Table(title=_title(outcome), title_justify="left")
    rows.add_column("")
    names = [each.name for each in outcome.patterns[0].parts]
    for name in names:
        rows.add_column(f"{name} \\[{LEVEL:.0%}]", justify="right", no_wrap=True)
    for each in outcome.patterns:
        rows.add_row(f"[bold]{each.pattern}[/bold]", *(_percent(p.pattern) for p in each.parts))
        rows.add_row("  against the best single", *(_difference(p.against_best) for p in each.parts))
        rows.add_row("  against the majority", *(_difference(p.against_majority) for p in each.parts))
        rows.add_section()
    for name, row in _references(outcome.patterns[0].parts):
        rows.add_row(name, *row)
    return rows


def lines(outcome: ReplayOutcome) -> Iterator[str]:
    """Yield the figures that are not accuracies."""
    if outcome.reading is not None:
        own = outcome.reading
        yield (
            f"own reading of the recorded answers: {_share(own.read, own.scored)} of {own.scored} that the "
            f"scorer reads, {_share(own.different, own.scored)} read differently"
        )
    for each in outcome.patterns:
        for part in each.parts if outcome.spec.feedback else each.parts[:1]:
            yield from (f"{each.pattern}, {part.name}: {line}" for line in _figures(part))
        yield from (f"{each.pattern}: {line}" for line in _counts(each))


def _title(outcome: ReplayOutcome) -> str:
    spec = outcome.spec
    ratings = f", the first {spec.feedback} answers rated" if spec.feedback else ""
    s = "s" if len(spec.models) > 1 else ""
    learns = "" if spec.learn else ", without learning"
    return (
        f"{spec.replay}: {spec.questions} questions, {len(spec.models)} model{s}{ratings}{learns}; "
        f"judged by {outcome.reader}"
    )


def _references(parts: Sequence[HalfShares]) -> Iterator[tuple[str, list[str]]]:
    yield "plain majority", [_percent(each.majority) for each in parts]
    if any(each.weighted is not None for each in parts):
        weighted = [each.weighted for each in parts]
        yield "vote by log-odds of the first", ["" if each is None else _percent(each) for each in weighted]
    yield "any member right", [_percent(each.oracle) for each in parts]
    members = parts[0].members
    for member in sorted(members, key=lambda name: -members[name].mean):
        best = ["*" if each.best == member else " " for each in parts]
        yield (
            member,
            [f"{_percent(each.members[member])}{star}" for each, star in zip(parts, best, strict=True)],
        )


def _figures(part: HalfShares) -> Iterator[str]:
    tokens, stops, readings = part.tokens, part.early_stops, part.readings
    yield (
        f"tokens written {tokens.written}, {_share(tokens.written, tokens.full)} of the {tokens.full} in the "
        f"full answers of all members; usage reports {tokens.reported}"
    )
    if not stops.votes:
        return
    error = "" if tokens.saved_error is None else f" ({tokens.saved_error:+.1%})"
    yield (
        f"votes stopped early {stops.stopped} of {stops.votes}: {_share(stops.right, stops.stopped)} right, "
        f"the full vote {_share(stops.full_right, stops.stopped)}, {stops.changed} different; saving "
        f"reported {tokens.saved_reported}, actual {tokens.saved}{error}"
    )
    if readings.counted + readings.not_counted:
        yield (
            f"voters counted {readings.counted + readings.counted_unreadable}, not counted though readable "
            f"{readings.not_counted} ({_or_none(readings.not_counted_share)}); "
            f"equal answers called different {_or_none(readings.equal_called_different)}, "
            f"different called equal {_or_none(readings.different_called_equal)}"
        )


def _counts(each: PatternOutcome) -> Iterator[str]:
    if each.kinds:
        yield "kinds of answer: " + ", ".join(f"{kind} {count}" for kind, count in _most_frequent(each.kinds))
    if each.chosen:
        yield "chosen in the last part: " + ", ".join(
            f"{name} {count}" for name, count in _most_frequent(each.chosen)
        )
    if each.failures:
        yield "failed: " + ", ".join(f"{count} {code}" for code, count in _most_frequent(each.failures))


def _most_frequent(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_CHOICES]


def _percent(interval: Interval) -> str:
    return f"{interval.mean:.1%} \\[{100 * interval.low:.1f} to {100 * interval.high:.1f}]"


def _difference(found: Difference) -> str:
    points = found.interval
    return (
        f"{100 * points.mean:+.1f} \\[{100 * points.low:+.1f} to {100 * points.high:+.1f}], "
        f"+{found.wins} −{found.losses}, p {found.p_value:.2g}"
    )


def _share(some: int, of: int) -> str:
    return f"{some / of:.1%}" if of else "–"


def _or_none(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"
