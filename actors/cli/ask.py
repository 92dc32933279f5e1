"""`orchestra ask` and `orchestra chat`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import click

from actors.bus.bus import Bus
from actors.cli.display import PlainDisplay
from actors.cli.lines import LineReader
from actors.cli.main import common, nats_option, overrides_of
from actors.cli.pattern_options import orchestra_of, pattern_options
from actors.cli.reach import nats_url_of
from actors.config.client import ClientSettings, load_client
from actors.launch.process import connected, run
from actors.runtime.envelope import Envelope
from actors.runtime.service_client import chat as ask_cluster
from orchestration.errors import InvalidRequest, UnknownModel
from orchestration.virtual_models import PATTERN_PREFIX


@dataclass(slots=True)
class PrintedAnswer:
    """The answer to one question, as far as it has arrived."""

    text: list[str] = field(default_factory=list)
    run: str = ""
    last: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)

    def add(self, text: str, replaces: int) -> None:
        """Add the next text. With `replaces` above 0 it replaces all text before it, and its first `replaces`
        characters are skipped."""
        if replaces:
            self.text.clear()
        self.text.append(text[replaces:])


def ask_options(command: Any) -> Any:
    """The options of `ask` and `chat`."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.1),
            default=600,
            show_default=True,
            help="Timeout in seconds.",
        ),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Maximum tokens of the answer."),
        click.option("--plain", is_flag=True, help="Show progress as lines, not as a live tree."),
        pattern_options,
    ):
        command = option(command)
    return common(nats_option(command))


@click.command()
@click.argument("question")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object: answer, run, steps, notes, report."
)
@ask_options
def ask(question: str, as_json: bool, **options: Any) -> None:
    """Ask one question. The answer goes to stdout, progress to stderr. QUESTION `-` reads stdin."""
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise InvalidRequest("the question is empty")
    settings, body, timeout = _prepared(options)
    body["messages"] = [_user(text)]
    with _plugins_explained(options):
        raise SystemExit(run(_ask(settings, body, timeout, as_json=as_json, plain=options["plain"])))


@click.command()
@ask_options
def chat(**options: Any) -> None:
    """Chat with the cluster. Ctrl-C stops an answer; an empty line or Ctrl-D ends the chat."""
    settings, body, timeout = _prepared(options)
    with _plugins_explained(options):
        raise SystemExit(run(_chat(settings, body, timeout, plain=options["plain"])))


@contextmanager
def _plugins_explained(options: dict[str, Any]) -> Iterator[None]:
    """Say what to do if the cluster does not know a pattern of a plug-in that is in the settings here."""
    try:
        yield
    except UnknownModel as error:
        from actors.patterns.plugins import load_catalogue
        from actors.settings import load
        from orchestration.patterns import BUILT_IN

        name = options["pattern"]
        local = load_catalogue(load({}, options["config_file"])[0].patterns)
        if name in BUILT_IN or name not in local or PATTERN_PREFIX + name not in error.message:
            raise
        raise UnknownModel(
            f"the cluster does not know the pattern {name!r} of {local.origin(name)}: plug-ins are loaded at "
            "the start, so restart `orchestra up` (or the agents and gateways)",
            param="model",
        ) from error


def _prepared(options: dict[str, Any]) -> tuple[ClientSettings, dict[str, Any], float]:
    settings = load_client(
        overrides_of(data=options["data"], nats__url=options["nats_url"]), options["config_file"]
    )
    pattern, run_options = options["pattern"], orchestra_of(options)
    body: dict[str, Any] = {"model": PATTERN_PREFIX + pattern, "stream_options": {"include_usage": True}}
    if pattern == "single" and set(run_options) == {"model"}:
        body["model"] = options["model"]  # one generation, without a run around it
    elif run_options:
        body["orchestra"] = run_options
    if options["max_tokens"] is not None:
        body["max_tokens"] = options["max_tokens"]
    return settings, body, options["timeout"]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def _ask(
    settings: ClientSettings, body: dict[str, Any], timeout: float, *, as_json: bool, plain: bool
) -> int:
    async with connected(settings, nats_url_of(settings), "orchestra-ask") as bus:
        envelope = Envelope.within(timeout)
        if as_json:
            answer = PrintedAnswer()
            async for _ in _texts(bus, body, envelope, answer):
                pass
        else:
            answer = await _shown(bus, body, envelope, plain=plain)
    if as_json:
        click.echo(json.dumps(_report(answer, body["model"]), ensure_ascii=False, indent=2))
    return 0


def _report(answer: PrintedAnswer, model: str) -> dict[str, Any]:
    return {
        "answer": "".join(answer.text),
        "run": answer.run,
        "model": answer.last.get("model") or model,
        "node": answer.last.get("node", ""),
        "steps": answer.last.get("steps", []),
        "notes": answer.last.get("notes", []),
        "report": answer.last.get("report", {}),
        "usage": answer.usage | answer.last.get("usage", {}),
    } | ({"trace_id": answer.last["trace_id"]} if "trace_id" in answer.last else {})


async def _chat(settings: ClientSettings, body: dict[str, Any], timeout: float, *, plain: bool) -> int:
    messages: list[dict[str, str]] = []
    lines = LineReader()
    async with connected(settings, nats_url_of(settings), "orchestra-chat") as bus:
        while True:
            click.echo("> ", nl=False)
            line = await lines.next()
            if not line:
                return 0
            messages.append(_user(line))
            request = body | {"messages": messages}
            answer = await _unless_stopped(
                _shown(bus, request, Envelope.within(timeout), plain=plain, closing_lines=False)
            )
            if answer is None:
                messages.pop()
                click.secho("· stopped; the chat goes on without this question", dim=True, err=True)
            else:
                messages.append({"role": "assistant", "content": "".join(answer.text)})


async def _unless_stopped(answering: Coroutine[Any, Any, PrintedAnswer]) -> PrintedAnswer | None:
    """The answer; None if Ctrl-C stopped it."""
    task = asyncio.ensure_future(answering)
    loop, usual = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()  # if the chat itself was stopped
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, usual)
    return None if task.cancelled() else task.result()


async def _shown(
    bus: Bus, body: dict[str, Any], envelope: Envelope, *, plain: bool, closing_lines: bool = True
) -> PrintedAnswer:
    """Stream one answer: its text to stdout, progress to stderr."""
    answer = PrintedAnswer()
    async with _display_for(bus, body["model"], plain=plain, closing_lines=closing_lines) as display:
        async with aclosing(_texts(bus, body, envelope, answer, display)) as texts:
            async for text in texts:
                await display.answer(text)
    display.ended(answer.last.get("notes", []))
    return answer


async def _texts(
    bus: Bus,
    body: dict[str, Any],
    envelope: Envelope,
    answer: PrintedAnswer,
    display: PlainDisplay | None = None,
) -> AsyncGenerator[str, None]:
    """The texts of an answer as they come. Fills `answer`, and has `display` show the rest."""
    async with aclosing(ask_cluster(bus, body, envelope)) as chunks:
        async for chunk in chunks:
            answer.run = answer.run or str(chunk.get("id", "")).removeprefix("chatcmpl-")
            extra = chunk.get("orchestra") or {}
            if display is not None:
                display.follow(answer.run)
                if "progress" in extra:
                    display.progress(extra["progress"])
            answer.last |= {k: v for k, v in extra.items() if k not in ("progress", "step", "replaces")}
            answer.usage = chunk.get("usage") or answer.usage
            replaces = extra.get("replaces", 0)
            for choice in chunk.get("choices", ()):
                delta = choice.get("delta", {})
                text = delta.get("content") or delta.get("refusal") or ""
                if text:
                    answer.add(text, replaces)
                    yield text


def _display_for(bus: Bus, model: str, *, plain: bool, closing_lines: bool = True) -> PlainDisplay:
    """The display for this terminal: formatted if stdout or stderr is one, else plain lines."""
    dumb = os.environ.get("TERM", "dumb").lower() in ("dumb", "unknown")
    drawn = sys.stderr.isatty() and model.startswith(PATTERN_PREFIX)
    if plain or dumb or not (drawn or sys.stdout.isatty()):
        return PlainDisplay(closing_lines=closing_lines)
    from actors.cli.live import LiveDisplay, MarkdownDisplay  # here: rich takes longer than plain lines

    if drawn:
        return LiveDisplay(bus, shared=sys.stdout.isatty(), closing_lines=closing_lines)
    return MarkdownDisplay(closing_lines=closing_lines)
