"""The options of commands that run a pattern: its name, its settings, and the budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from orchestration.errors import InvalidRequest


def settings_option(command: Any) -> Any:
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Setting of the pattern, with JSON or plain text as value; repeatable.",
    )(command)


def pattern_options(command: Any) -> Any:
    """`--pattern`, `--model`, `--set` and the three options of a budget. `orchestra_of` reads them."""
    for option in (
        click.option(
            "--budget-calls", type=click.IntRange(min=1), help="Maximum calls of models in the run."
        ),
        click.option(
            "--budget-seconds",
            type=click.FloatRange(min=0, min_open=True),
            help="Maximum duration of the run in seconds.",
        ),
        click.option(
            "--budget-tokens",
            type=click.IntRange(min=1),
            help="Maximum tokens of prompts and answers in the run; then the best answer so far comes.",
        ),
        settings_option,
        click.option("--model", metavar="NAME", help="Model for all steps. [default: each role chooses]"),
        click.option(
            "--pattern",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="Pattern, as in `orchestra patterns list`.",
        ),
    ):
        command = option(command)
    return command


def settings_of(texts: Sequence[str]) -> dict[str, Any]:
    """Parse texts `NAME=VALUE`, whose values are JSON or plain text. Raises `InvalidRequest`."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidRequest(f"--set {text!r} is not NAME=VALUE", param="--set")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def orchestra_of(options: dict[str, Any]) -> dict[str, Any]:
    """The field `orchestra` of a request, with what the options set. Raises `InvalidRequest`."""
    values: dict[str, Any] = {}
    if options["model"] is not None:
        values["model"] = options["model"]
    settings = settings_of(options["settings"])
    if settings:
        values["settings"] = settings
    budget = {name: options[f"budget_{name}"] for name in ("tokens", "seconds", "calls")}
    budget = {name: value for name, value in budget.items() if value is not None}
    if budget:
        values["budget"] = budget
    return values
