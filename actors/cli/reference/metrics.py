"""The reference page of Prometheus metrics: name, type, labels, and what it counts."""

from __future__ import annotations

import ast

from actors.cli.reference.source import calls, one_line, table

KINDS = frozenset({"Counter", "Gauge", "Histogram", "Summary"})
HEAD = """# Metrics

A process with a gateway serves the metrics of all parts that run in it, in Prometheus' text format, at
`/metrics` of its HTTP address. With `orchestra up` that is everything on the machine; processes without a
gateway serve none. A counter's name ends in `_total`, and the name of a duration or a size in its unit. The
label `model` is the name in the cluster, `node` the id of the node, `kind` the kind of question, and
`outcome` how it ended, such as `ok` or the code of an error.
"""


def page() -> str:
    """The page as Markdown."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for call in calls(KINDS):
        if not call.args or not isinstance(call.args[0], ast.Constant):
            continue
        name = str(call.args[0].value)
        kind = call.func.id.lower() if isinstance(call.func, ast.Name) else ""
        shown = f"{name}_total" if kind == "counter" and not name.endswith("_total") else name
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
    given = next((word.value for word in call.keywords if word.arg == "labelnames"), given)
    if not isinstance(given, ast.List | ast.Tuple):
        return ""
    return ", ".join(f"`{each.value!s}`" for each in given.elts if isinstance(each, ast.Constant))
