"""`orchestra patterns`: list patterns with their settings, or check one of your own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from actors.cli.main import ErrorReportingGroup, common, overrides_of
from actors.cli.operator import OperatorClient, changing, confirm, run_operator, show_answer
from actors.cli.pattern_options import settings_of, settings_option
from actors.patterns.dry_run import dry_run
from actors.patterns.plugins import load_catalogue, plugins_at, with_plugins
from actors.settings import load
from orchestration.errors import InvalidRequest
from orchestration.patterns import BUILT_IN, Catalogue, Pattern

QUESTION = "Why is the sky blue?"


@click.group(cls=ErrorReportingGroup)
def patterns() -> None:
    """List the patterns, or check one of your own without a model."""


@patterns.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, as GET /v1/patterns does.")
@common
def list_(config_file: Path | None, data: Path | None, as_json: bool) -> None:
    """List the patterns of these settings: description, origin and settings of each."""
    catalogue = _catalogue(config_file, data)
    if as_json:
        click.echo(json.dumps(catalogue.to_json(), ensure_ascii=False, indent=2))
        return
    for name, pattern in catalogue.items():
        click.echo(f"{click.style(name, bold=True)}  {pattern.description}  ({catalogue.origin(name)})")
        for line in settings_shown(pattern):
            click.echo(f"    {line}")
    for broken in catalogue.broken:
        names = ", ".join(broken.names) or "no pattern"
        click.echo(f"{click.style(names, fg='red')}  cannot be used: {broken.reason}  ({broken.origin})")


@patterns.command()
@click.argument("name")
@changing
def disable(name: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Refuse requests that name the pattern NAME, at all gateways."""
    _switch("disable", options, name, reason, yes=yes, as_json=as_json)


@patterns.command()
@click.argument("name")
@changing
def enable(name: str, reason: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Accept requests that name the pattern NAME again."""
    _switch("enable", options, name, reason, yes=yes, as_json=as_json)


def _switch(verb: str, options: dict[str, Any], name: str, reason: str, *, yes: bool, as_json: bool) -> None:
    async def work(client: OperatorClient) -> None:
        await confirm(f"{verb.capitalize()} pattern {name}", yes=yes)
        answer = await client.call(f"patterns.{verb}", pattern=name, reason=reason)
        line = f"pattern {name} is {'disabled' if answer['disabled'] else 'enabled'}"
        show_answer(answer, line, as_json=as_json)

    run_operator(options, work)


@patterns.command()
@click.argument("pattern", metavar="PATH|NAME")
@click.option("--question", default=QUESTION, show_default=True, help="Question of the run.")
@settings_option
@common
def check(
    pattern: str, question: str, config_file: Path | None, data: Path | None, settings: tuple[str, ...]
) -> None:
    """Run the patterns of a Python file, or one pattern by its name, without a model, and show their steps.

    The answer of every step is its own prompt. Exit code 5: the pattern breaks a rule; 2: it cannot be
    loaded.
    """
    if pattern.endswith(".py") or "/" in pattern:
        catalogue = with_plugins(BUILT_IN, plugins_at(Path(pattern)))
        names = [name for name in catalogue if name not in BUILT_IN]
        for broken in catalogue.broken:
            raise InvalidRequest(f"{broken.origin}: {broken.reason}")
    else:
        catalogue = _catalogue(config_file, data)
        if pattern not in catalogue and not any(pattern in each.names for each in catalogue.broken):
            known = ", ".join(catalogue)
            raise InvalidRequest(f"no pattern {pattern!r}; the patterns are {known}; a file ends in .py")
        names = [catalogue.find(pattern).name]
    for name in names:
        done = asyncio.run(dry_run(catalogue, name, question, settings_of(settings)))
        click.echo(f"{click.style(name, bold=True)}  {catalogue[name].description}")
        for step in done.steps:
            outcome = (
                f"failed: {step.error.message}" if step.error is not None else f"{len(step.text)} characters"
            )
            click.echo(f"    {step.name}: {step.agent}, {outcome}")
        for note in done.notes:
            click.echo(f"    note: {note}")
        click.echo(f"    answer: {len(done.text)} characters; report: {', '.join(done.report) or 'none'}")
    if pattern.endswith(".py"):
        click.echo(
            f'To use it, put [patterns] paths = ["{Path(pattern).absolute()}"] into orchestra.toml and '
            "restart `orchestra up`, which loads plug-ins at its start.",
            err=True,
        )


def _catalogue(config_file: Path | None, data: Path | None) -> Catalogue:
    return load_catalogue(load(overrides_of(data=data), config_file)[0].patterns)


def settings_shown(pattern: Pattern) -> list[str]:
    """A line for each setting: name, default, type and bounds."""
    schema = pattern.settings.model_json_schema()
    return [_line(name, field, schema) for name, field in schema.get("properties", {}).items()]


def _line(name: str, field: dict[str, Any], schema: dict[str, Any]) -> str:
    default = f" = {json.dumps(field['default'], ensure_ascii=False)}" if "default" in field else ""
    return f"{name}{default}  {_kind(field, schema)}{_bounds(field)}"


def _kind(field: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in field:
        return _kind(schema["$defs"][field["$ref"].rsplit("/", 1)[-1]], schema)
    if "anyOf" in field:
        return " or ".join(_kind(each, schema) for each in field["anyOf"])
    if "enum" in field:
        return " | ".join(str(each) for each in field["enum"])
    if field.get("type") == "array":
        return f"array of {_kind(field.get('items', {}), schema)}"
    return str(field.get("type", "anything"))


def _bounds(field: dict[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "minLength": "characters at least",
        "maxLength": "characters at most",
        "maxItems": "items at most",
    }
    bounds = [f"{word} {field[key]}" for key, word in words.items() if key in field]
    return f", {', '.join(bounds)}" if bounds else ""
