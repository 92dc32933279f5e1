"""`orchestra status --explain MODEL`: the node that a generation would go to, and the reasons."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from random import Random

import click
from rich.console import Console
from rich.table import Table

from actors.bus.bus import Bus, Message
from actors.bus.subjects import ExplainAddress
from actors.cli.show import widen
from orchestration.messages import NodeInfo
from orchestration.placement import Chooser, Explanation, Needs, explain

ANSWER_S = 0.5
"""Time to wait for the answers of dispatchers, which come within milliseconds."""


async def explanations(bus: Bus, needs: Needs, nodes: Sequence[NodeInfo]) -> list[Explanation]:
    """The explanation of every dispatcher; if none answers, one from the registry alone."""
    answers: list[Explanation] = []

    def on_answer(message: Message) -> None:
        if message.data:
            answers.append(Explanation.model_validate_json(message.data))

    reply = bus.expect(on_answer)
    await bus.publish(ExplainAddress(needs.model).subject, needs.encode().encode(), reply=reply)
    await asyncio.sleep(ANSWER_S)
    bus.forget(reply)
    if answers:
        return sorted(answers, key=lambda each: each.dispatcher)
    chooser, now = Chooser(random=Random(0)), time.monotonic()
    for node in nodes:
        chooser.index.put(node, now)
    return [explain(chooser.index, needs, now)]


def show(answers: Sequence[Explanation], as_json: bool) -> None:
    """Print the explanations."""
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in answers], indent=2))
        return
    console = widen(Console())
    for each in answers:
        who = f"dispatcher {each.dispatcher}" if each.dispatcher else "no dispatcher answers; by the registry"
        console.print(f"{each.model}: {each.needs} ({who})", highlight=False)
        console.print(_table(each) if each.candidates else "no live node serves it", highlight=False)
        if each.nodes > len(each.candidates):
            console.print(f"… and {each.nodes - len(each.candidates)} more nodes")


def _table(explanation: Explanation) -> Table:
    table = Table(
        "node", "cost", "expected", "decode", "prefill", "measured", "busy", "why", box=None, pad_edge=False
    )
    for each in explanation.candidates:
        factors = {
            "tries": each.tries,
            "slowdown": each.slowdown,
            "affinity": each.affinity,
            "doubt": each.doubt,
        }
        why = [f"{name} ×{factor:.2g}" for name, factor in factors.items() if abs(factor - 1) >= 0.05]
        if each.breaker != "closed":
            why.append(f"breaker {each.breaker}")
        table.add_row(
            each.node,
            "–" if each.left_out else f"{each.cost:.2f}",
            f"{each.service_s:.2f} s",
            f"{each.decode_tokens_per_s:.0f}/s",
            f"{each.prefill_tokens_per_s:.0f}/s",
            f"{each.samples} calls" if each.samples else "guessed",
            f"{each.at_work}/{each.slots}",
            f"left out: {each.left_out}" if each.left_out else ", ".join(why),
        )
    return table
