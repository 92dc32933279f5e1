"""The reference page of Prometheus metrics: name, type, labels, and what it counts."""

from __future__ import annotations

import ast

from actors.cli.reference.source import calls, one_line, table

KINDS = {
    "Counter": "counter",
    "CounterMetricFamily": "counter",
    "Gauge": "gauge",
    "GaugeMetricFamily": "gauge",
    "Histogram": "histogram",
    "Info": "gauge",
    "Summary": "summary",
}
"""What makes a metric, and the type that it has."""
HEAD = """# Metrics

Every process serves its metrics in Prometheus' text format: one with a gateway at `/metrics` of its HTTP
address, any other at the address of `telemetry.metrics`, which its ready line names. A gateway also serves
those of all other processes, at `/metrics/processes/{id}`, and lists them at `/metrics/targets` for
Prometheus' HTTP service discovery: so one address is enough to scrape a cluster (`deploy/prometheus`). On
NATS a process answers `process.<id>.metrics`.

A counter's name ends in `_total`, and the name of a duration or a size in its unit. The label `model` is the
name in the cluster, `node` the id of the node, `pattern` the name of a pattern, `kind` the kind of question,
and `outcome` how it ended. No label has a value that a caller can make up: what the cluster does not know is
`other`, as are values beyond 500 models, 1,000 nodes and 100 patterns. A node's series go ten minutes after
it left. Beside those below, each process has `process_*`, `python_*` of Prometheus' client library.
"""


def page() -> str:
    """The page as Markdown."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for call in calls(frozenset(KINDS)):
        if not call.args or not isinstance(call.args[0], ast.Constant):
            continue
        name = str(call.args[0].value)
        made = call.func.id if isinstance(call.func, ast.Name) else ""
        kind = KINDS[made]
        shown = f"{name}_total" if kind == "counter" and not name.endswith("_total") else name
        shown = f"{name}_info" if made == "Info" else shown
        group = name.removeprefix("orchestra_").partition("_")[0]
        groups.setdefault(group, []).append((f"`{shown}`", kind, _labels(call), _help(call)))
    return HEAD + "".join(
        f"\n## {group}\n\n{table(('metric', 'type', 'labels', 'what it is'), sorted(rows))}"
        for group, rows in sorted(groups.items())
    )


def _help(call: ast.Call) -> str:
    given = call.args[1] if len(call.args) > 1 else ast.Constant("")
    return one_line(str(ast.literal_eval(given)))


def _labels(call: ast.Call) -> str:
    given = call.args[2] if len(call.args) > 2 else None
    given = next((word.value for word in call.keywords if word.arg in ("labelnames", "labels")), given)
    if not isinstance(given, ast.List | ast.Tuple):
        return ""
    return ", ".join(f"`{each.value!s}`" for each in given.elts if isinstance(each, ast.Constant))
