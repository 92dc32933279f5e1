"""What commands say of a pattern: which, its settings, and what its run may use."""

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
        help="Setting of the pattern, the value as JSON or plain text; repeat for more.",
    )(command)


def pattern_options(command: Any) -> Any:
    """`--pattern`, `--model`, `--set` and the three of a budget; `orchestra_of` reads them."""
    for option in (
        click.option("--budget-calls", type=click.IntRange(min=1), help="Model calls of the whole run."),
        click.option(
            "--budget-seconds", type=click.FloatRange(min=0, min_open=True), help="Seconds of the whole run."
        ),
        click.option(
            "--budget-tokens",
            type=click.IntRange(min=1),
            help="Tokens of the whole run, read and written. At a limit the best answer so far comes.",
        ),
        settings_option,
        click.option("--model", metavar="NAME", help="Model for every step. [default: the roles choose]"),
        click.option(
            "--pattern",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="Who answers, and how: see `orchestra patterns list`.",
        ),
    ):
        command = option(command)
    return command


def settings_of(said: Sequence[str]) -> dict[str, Any]:
    """Of `NAME=VALUE`, the value as JSON or plain text. Raises `InvalidRequest`."""
    found: dict[str, Any] = {}
    for text in said:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidRequest(f"--set {text!r} is not NAME=VALUE", param="--set")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def orchestra_of(options: dict[str, Any]) -> dict[str, Any]:
    """The request's field `orchestra`, as far as the options say something. Raises `InvalidRequest`."""
    said: dict[str, Any] = {}
    if options["model"] is not None:
        said["model"] = options["model"]
    settings = settings_of(options["settings"])
    if settings:
        said["settings"] = settings
    budget = {name: options[f"budget_{name}"] for name in ("tokens", "seconds", "calls")}
    budget = {name: value for name, value in budget.items() if value is not None}
    if budget:
        said["budget"] = budget
    return said
