"""The reference page of Prometheus metrics: name, type, labels, and what it counts."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from actors.cli.reference.source import matching, one_line, parsed, table

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
`other`, as are values beyond `telemetry.max_label_values`. A node's series go ten minutes after it left.
Beside those below, each process has `process_*` and `python_*` of Prometheus' client library.
"""


def page() -> str:
    """The page as Markdown."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for call, names in _calls():
        if not call.args or not isinstance(call.args[0], ast.Constant):
            continue
        name = str(call.args[0].value)
        made = call.func.id if isinstance(call.func, ast.Name) else ""
        kind = KINDS[made]
        shown = f"{name}_total" if kind == "counter" and not name.endswith("_total") else name
        shown = f"{name}_info" if made == "Info" else shown
        group = name.removeprefix("orchestra_").partition("_")[0]
        groups.setdefault(group, []).append((f"`{shown}`", kind, _labels(call, names), _help(call)))
    return HEAD + "".join(
        f"\n## {group}\n\n{table(('metric', 'type', 'labels', 'what it is'), sorted(rows))}"
        for group, rows in sorted(groups.items())
    )


def _calls() -> Iterator[tuple[ast.Call, dict[str, ast.expr]]]:
    """Every call that makes a metric, with the values of the names that its module assigns."""
    for module in matching(rf"\b({'|'.join(KINDS)})\("):
        nodes = list(ast.walk(parsed(module)))
        names = {
            target.id: node.value
            for node in nodes
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                yield node, names


def _help(call: ast.Call) -> str:
    given = call.args[1] if len(call.args) > 1 else ast.Constant("")
    return one_line(str(ast.literal_eval(given)))


def _labels(call: ast.Call, names: dict[str, ast.expr]) -> str:
    given = call.args[2] if len(call.args) > 2 else None
    given = next((word.value for word in call.keywords if word.arg in ("labelnames", "labels")), given)
    if isinstance(given, ast.Name):
        given = names.get(given.id)
    if not isinstance(given, ast.List | ast.Tuple):
        return ""
    return ", ".join(f"`{each.value!s}`" for each in given.elts if isinstance(each, ast.Constant))
