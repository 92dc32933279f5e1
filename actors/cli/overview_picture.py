"""Draws an overview of the cluster for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.admin.overview_rows import NodeRow, Overview, ProcessRow, QueueRow, ServedModelRow, Traffic

BAR = 10
"""Characters of a bar."""
MANY = 8
"""Maximum number of models that are named in one cell."""
NARROW = 130
"""Columns of a terminal below which tables leave out what is not needed at a glance."""
LEFT_OUT = {"kind", "p95", "backend", "hardware", "host", "version", "metrics"}
"""Columns that narrow tables leave out."""
CUT = {"model", "node", "models", "process"}
"""Columns whose cells are cut where a narrow table has no room; all others are shown whole."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a picture shows. `live` adds the columns of what passes; `rows` is the maximum number of rows of
    each table; `narrow` is for a terminal of few columns."""

    live: bool = False
    rows: int | None = None
    narrow: bool = False

    @classmethod
    def of(cls, width: int, *, live: bool = False, rows: int | None = None) -> Shape:
        """The shape for a terminal of `width` columns."""
        return cls(live=live, rows=rows, narrow=width < NARROW)


def draw_overview(overview: Overview, shape: Shape) -> RenderableType:
    """The cluster in a few tables."""
    rows = shape.rows
    parts: list[RenderableType] = [_headline(overview), *_warnings(overview)]
    parts += _section("models", _models(overview.models, shape), bool(overview.models))
    parts += _section("nodes", _nodes(overview.nodes, shape), bool(overview.nodes))
    parts += [_loads(node) for node in overview.nodes[:rows] if node.offered and node.memory.limit_bytes]
    busy = [row for row in overview.queues if row.waiting or row.in_progress]
    parts += _section("queues", _queues(busy), bool(busy))
    parts += _section("processes", _processes(overview.processes, shape), bool(overview.processes))
    parts += [Text(), Text("NATS  ", style="bold") + Text(" · ".join(overview.nats.lines()), style="dim")]
    if not busy:
        parts.insert(-1, Text("queues  ", style="bold") + Text("empty", style="dim"))
    return Group(*parts)


def _section(title: str, table: Table, shown: bool) -> list[RenderableType]:
    return [Text(), Text(title, style="bold"), table] if shown else []


def _headline(overview: Overview) -> Text:
    """One line: the size of the cluster, and what passes."""
    slots = sum(node.slots for node in overview.nodes)
    running = sum(node.running for node in overview.nodes)
    about = [
        _count(len(overview.nodes), "node"),
        _count(len(overview.models), "model"),
        f"{running} of {slots} slots busy",
    ]
    if overview.in_flight is not None:
        about.append(f"{_count(overview.in_flight, 'request')} in flight")
    if overview.traffic is not None:
        traffic = overview.traffic
        about += [f"{traffic.requests_per_s:.3g} requests/s", f"{traffic.output_tokens_per_s:.3g} tokens/s"]
        if traffic.first_token_p50_s is not None:
            p95 = _seconds(traffic.first_token_p95_s)
            about.append(f"first token {_seconds(traffic.first_token_p50_s)}, p95 {p95}")
        if traffic.error_share:
            about.append(f"{traffic.error_share:.1%} errors")
    return Text.assemble(("Orchestra", "bold"), f"  {overview.nats_url}  ", (" · ".join(about), "dim"))


def _warnings(overview: Overview) -> list[Text]:
    if not overview.warnings:
        return [Text.assemble(("✓ ", "green"), "nothing needs attention")]
    return [Text.assemble(("! ", "bold yellow"), warning) for warning in overview.warnings]


def _models(models: Sequence[ServedModelRow], shape: Shape) -> Table:
    live, narrow = shape.live, shape.narrow
    columns = ["model", "kind", "nodes", "busy", "waiting", "oldest"]
    traffic = ["req/s", "tok/s", "first"] if narrow else ["requests/s", "tokens/s", "first token"]
    columns += [*traffic, "p95", "errors"] if live else []
    table = _table(columns)
    for row in _busiest(models, shape.rows):
        loaded = f"{row.loaded}/{row.nodes}" if narrow else f"{row.loaded} of {row.nodes} loaded"
        cells: list[str | Text] = [
            row.name,
            row.kind,
            str(row.nodes) if row.loaded == row.nodes else loaded,
            _bar(row.running, row.slots, narrow),
            str(row.waiting) if row.waiting else "",
            _seconds(row.oldest_s) if row.waiting else "",
        ]
        table.add_row(*cells, *(_traffic(row.traffic) if live else ()))
    return _finished(table, len(models), shape)


def _busiest(models: Sequence[ServedModelRow], rows: int | None) -> list[ServedModelRow]:
    """The models that are shown, by name; the busiest ones if not all are."""
    if rows is None or len(models) <= rows:
        return list(models)
    most = sorted(models, key=lambda row: (-row.waiting, -(row.traffic or Traffic()).requests_per_s))
    return sorted(most[:rows], key=lambda row: row.name)


def _traffic(traffic: Traffic | None) -> list[str | Text]:
    if traffic is None:
        return ["", "", "", "", ""]
    errors = traffic.error_share
    return [
        f"{traffic.requests_per_s:.3g}",
        f"{traffic.output_tokens_per_s:.3g}",
        _seconds(traffic.first_token_p50_s),
        _seconds(traffic.first_token_p95_s),
        "" if errors is None else Text(f"{errors:.1%}", style="red" if errors else ""),
    ]


def _nodes(nodes: Sequence[NodeRow], shape: Shape) -> Table:
    table = _table(["node", "state", "backend", "busy", "models", "memory for models", "hardware", "up"])
    for row in nodes[: shape.rows]:
        loaded = [*row.models, *(f"({name})" for name in row.offered)]
        more = f" and {len(loaded) - MANY} more" if len(loaded) > MANY else ""
        limit = f" of {_bytes(row.memory.limit_bytes)}" if row.memory.limit_bytes else ""
        hardware = (f"{row.cores} cores", _bytes(row.memory_bytes), row.provider, *row.accelerators)
        table.add_row(
            row.id,
            Text(row.state, style="green" if row.state == "serving" else "yellow"),
            row.backend,
            _bar(row.running, row.slots, shape.narrow),
            ", ".join(loaded[:MANY]) + more,
            f"{_bytes(row.models_bytes)}{limit}" if row.models_bytes or limit else "",
            ", ".join(part for part in hardware if part),
            _duration(row.uptime_s),
        )
    return _finished(table, len(nodes), shape)


def _loads(node: NodeRow) -> Text:
    """How often models took turns in the memory of a node that does not hold all that it offers."""
    use = node.memory
    turns = f"{use.loads} loads, {use.unloads} unloads, {use.swaps} swaps"
    starts = f"{use.cold} cold starts, {use.warmed} warmed, {use.hits} hits"
    return Text(f"{node.id}: {turns}; {starts}", style="dim")


def _queues(queues: Sequence[QueueRow]) -> Table:
    table = _table(["queue", "priority", "waiting", "in progress", "oldest"])
    for row in queues:
        table.add_row(
            row.queue,
            row.priority,
            str(row.waiting),
            str(row.in_progress),
            _seconds(row.oldest_s) if row.waiting else "",
        )
    return table


def _processes(processes: Sequence[ProcessRow], shape: Shape) -> Table:
    columns = ["process", "role", "host", "version", "up", "metrics"]
    table = _table([*columns, *(["CPU", "memory", "loop p95"] if shape.live else [])])
    for row in processes[: shape.rows]:
        cells = [row.id, row.role, row.host, row.version, _duration(row.uptime_s), row.url]
        if shape.live:
            cells += [
                "" if row.cpu_share is None else f"{row.cpu_share:.0%}",
                "" if row.memory_bytes is None else _bytes(row.memory_bytes),
                _seconds(row.loop_lag_p95_s),
            ]
        table.add_row(*cells)
    return _finished(table, len(processes), shape)


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _finished(table: Table, total: int, shape: Shape) -> Table:
    """The table with a last line that says how many rows it leaves out."""
    if shape.rows is not None and total > shape.rows:
        table.add_row(Text(f"… and {total - shape.rows} more", style="dim"))
    return _narrowed(table) if shape.narrow else table


def _narrowed(table: Table) -> Table:
    """The table with one line for each row, without what is not needed at a glance."""
    kept = [column for column in table.columns if column.header not in LEFT_OUT]
    narrow = _table([str(column.header) for column in kept])
    for row in zip(*(column.cells for column in kept), strict=True):
        narrow.add_row(*row)
    narrow.expand = True  # what has a ratio takes the rest of the width
    for column in narrow.columns:
        column.ratio = 1 if column.header in CUT else None
        column.no_wrap, column.overflow = True, "ellipsis"
    return narrow


def _bar(used: int, limit: int, narrow: bool) -> Text:
    """`▮▮▮▯▯▯▯▯▯▯ 3/10`, or `3/10` where the table is narrow."""
    if narrow:
        return Text(f"{used}/{limit}", style="red" if limit and used >= limit else "")
    filled = min(BAR, -(-used * BAR // limit)) if limit else 0
    style = "red" if limit and used >= limit else "green"
    return Text.assemble(("▮" * filled, style), ("▯" * (BAR - filled), "dim"), f" {used}/{limit}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 120 else _duration(value)


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _bytes(size: float) -> str:
    for unit, limit in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{size:.0f} B"
