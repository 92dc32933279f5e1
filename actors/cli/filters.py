"""Options that say which of many are meant, and arguments that give values by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.core import ParameterSource

from orchestration.errors import InvalidRequest


def filter_option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """An option without which a command means all. It is '' when it is not used, and may not be given as '':
    a shell variable without a value would show or change everything."""
    return click.option(*names, default="", callback=_not_empty, **attributes)


def _not_empty(context: click.Context, option: click.Parameter, value: str) -> str:
    given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if given and not value.strip():
        raise click.BadParameter("it is empty; leave the option out to mean all")
    return value


def by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The values by name. Raises `InvalidRequest` for a name that is given twice."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise InvalidRequest(f"{name[:80]} is given twice")
        values[name] = value
    return values
