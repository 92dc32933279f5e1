"""Nodes and needs for placement, with little to say about each."""

from __future__ import annotations

from orchestration.messages import Hardware, ModelCard, ModelRates, NodeInfo
from orchestration.placement import Choice, Chooser, Deferral, Demand, Needs

MODEL = "m"
NEEDS = Needs(model=MODEL, prompt_tokens=40, output_tokens=100)


def node(
    name: str,
    *,
    speed: float = 50.0,
    slots: int = 4,
    running: int = 0,
    draining: bool = False,
    labels: dict[str, str] | None = None,
    context: int = 0,
    accelerators: tuple[str, ...] = (),
    samples: int = 1000,
    error_rate: float = 0.0,
    slowdown: float = 1.0,
) -> NodeInfo:
    """A node that serves `MODEL` at `speed` tokens a second, as measured."""
    rates = ModelRates(samples=samples, token_s=1 / speed, error_rate=error_rate, slowdown=slowdown)
    return NodeInfo(
        id=name,
        backend="echo",
        models=(ModelCard(name=MODEL, context_tokens=context),),
        hardware=Hardware(cores=4, memory_bytes=2**33, provider="cpu", accelerators=accelerators),
        labels=labels or {},
        rates={MODEL: rates} if samples else {},
        slots=slots,
        running=running,
        draining=draining,
    )


def needing(
    *,
    demand: Demand = Demand.ORDINARY,
    prompt_tokens: int = 40,
    output_tokens: int = 100,
    **labels: str,
) -> Needs:
    return Needs(
        model=MODEL,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        demand=demand,
        labels=frozenset(labels.items()),
    )


def where(choice: Choice | Deferral) -> str:
    """The id of the node chosen, '' for none."""
    return choice.node.id if isinstance(choice, Choice) else ""


def fill(chooser: Chooser, count: int, needs: Needs = NEEDS, now: float = 0.0) -> dict[str, int]:
    """Start up to `count` generations, one after another; how many each node got."""
    mine: dict[str, int] = {}
    for _ in range(count):
        name = where(chooser.choose(needs, now, patient=False))
        if name:
            mine[name] = mine.get(name, 0) + 1
            chooser.index.set_own_count(name, mine[name], now)
    return mine
