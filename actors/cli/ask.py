"""`orchestra ask` and `orchestra chat`."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console

from actors.cli.main import common, nats_option, said
from actors.cli.pattern_options import orchestra_of, pattern_options
from actors.cli.reach import nats_url_of
from actors.client import chat as ask_cluster
from actors.process import run
from actors.runtime.bus import Bus
from actors.runtime.envelope import Envelope, new_trace
from actors.runtime.telemetry import trace_id
from actors.settings import Settings, load
from actors.up import connected
from orchestration.errors import InvalidRequest
from orchestration.patterns import PREFIX


@dataclass(slots=True)
class Answer:
    """What came of one question."""

    text: list[str] = field(default_factory=list)
    run: str = ""
    last: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)


def asking(command: Any) -> Any:
    """The options of `ask` and `chat`."""
    for option in (
        click.option(
            "--timeout", type=click.FloatRange(min=0.1), default=600, show_default=True, help="Seconds."
        ),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer."),
        pattern_options,
    ):
        command = option(command)
    return common(nats_option(command))


@click.command()
@click.argument("question")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: answer, run, steps, notes, report.")
@asking
def ask(question: str, as_json: bool, **options: Any) -> None:
    """Ask the cluster. The answer streams to stdout, progress to stderr. QUESTION `-` reads stdin."""
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise InvalidRequest("the question is empty")
    settings, body, timeout = _prepared(options)
    raise SystemExit(run(_ask(settings, body | {"messages": [_user(text)]}, timeout, as_json)))


@click.command()
@asking
def chat(**options: Any) -> None:
    """Talk to the cluster, turn by turn. An empty line or Ctrl-D ends it."""
    settings, body, timeout = _prepared(options)
    raise SystemExit(run(_chat(settings, body, timeout)))


def _prepared(options: dict[str, Any]) -> tuple[Settings, dict[str, Any], float]:
    settings, _ = load(said(data=options["data"], nats__url=options["nats_url"]), options["config_file"])
    pattern, said_of_run = options["pattern"], orchestra_of(options)
    body: dict[str, Any] = {"model": PREFIX + pattern, "stream_options": {"include_usage": True}}
    if pattern == "single" and set(said_of_run) == {"model"}:
        body["model"] = options["model"]  # one generation, without a run around it
    elif said_of_run:
        body["orchestra"] = said_of_run
    if options["max_tokens"] is not None:
        body["max_tokens"] = options["max_tokens"]
    return settings, body, options["timeout"]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def _ask(settings: Settings, body: dict[str, Any], timeout: float, as_json: bool) -> int:
    async with connected(settings, nats_url_of(settings), "orchestra-ask") as bus:
        trace = new_trace()
        answer = await _answered(bus, body, Envelope.within(timeout, trace=trace), quiet=as_json)
    if as_json:
        click.echo(json.dumps(_report(answer, body["model"], trace), ensure_ascii=False, indent=2))
    return 0


def _report(answer: Answer, model: str, trace: str) -> dict[str, Any]:
    return {
        "answer": "".join(answer.text),
        "run": answer.run,
        "model": answer.last.get("model") or model,
        "node": answer.last.get("node", ""),
        "steps": answer.last.get("steps", []),
        "notes": answer.last.get("notes", []),
        "report": answer.last.get("report", {}),
        "usage": answer.usage,
        "trace_id": answer.last.get("trace_id") or trace_id(trace),
    }


async def _chat(settings: Settings, body: dict[str, Any], timeout: float) -> int:
    messages: list[dict[str, str]] = []
    async with connected(settings, nats_url_of(settings), "orchestra-chat") as bus:
        while True:
            line = await asyncio.to_thread(_read_line)
            if not line:
                return 0
            messages.append(_user(line))
            answer = await _answered(
                bus, body | {"messages": messages}, Envelope.within(timeout), quiet=False
            )
            messages.append({"role": "assistant", "content": "".join(answer.text)})


def _read_line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


async def _answered(bus: Bus, body: dict[str, Any], envelope: Envelope, *, quiet: bool) -> Answer:
    """Stream one answer; stdout gets its text and stderr its progress unless `quiet`."""
    answer = Answer()
    console = Console(stderr=True, highlight=False)
    async with aclosing(ask_cluster(bus, body, envelope)) as chunks:
        async for chunk in chunks:
            answer.run = answer.run or str(chunk.get("id", "")).removeprefix("chatcmpl-")
            extra = chunk.get("orchestra") or {}
            if "progress" in extra and not quiet:
                console.print(f"· {extra['progress']}", style="dim", markup=False)
            answer.last |= {k: v for k, v in extra.items() if k not in ("progress", "step")}
            answer.usage = chunk.get("usage") or answer.usage
            for choice in chunk.get("choices", ()):
                text = choice.get("delta", {}).get("content") or ""
                if text:
                    answer.text.append(text)
                    if not quiet:
                        click.echo(text, nl=False)
    if not quiet:
        click.echo()
    return answer
