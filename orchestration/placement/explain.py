"""Explains the choice of a node, for people and for traces."""

from __future__ import annotations

from itertools import islice

from orchestration.messages import Wire
from orchestration.placement.breaker import State
from orchestration.placement.needs import Needs
from orchestration.placement.replica import Replica
from orchestration.placement.replica_index import ReplicaIndex
from orchestration.placement.scoring import score

MAX_CANDIDATES = 50
"""Maximum number of candidates in an explanation, the best ones, and of those left out."""


MAX_LINES = 8
MAX_LOOKED_AT = 64


class Candidate(Wire):
    """A replica and what speaks for and against it. `cost` is in seconds, the lower the better; the factors
    are those of `scoring.Score`. `left_out` says why it cannot be chosen now, '' for one that can."""

    node: str
    cost: float
    service_s: float
    tries: float
    slowdown: float
    affinity: float
    doubt: float
    at_work: int
    slots: int
    decode_tokens_per_s: float
    prefill_tokens_per_s: float
    samples: int
    breaker: str
    left_out: str = ""


class Explanation(Wire):
    """The candidates as `dispatcher` knows them; with '' as the registry alone shows them."""

    dispatcher: str = ""
    model: str
    needs: str
    nodes: int
    candidates: tuple[Candidate, ...]


def explain(index: ReplicaIndex, needs: Needs, now: float, *, dispatcher: str = "") -> Explanation:
    """All replicas of the model: the best first, then those left out."""
    replicas = index.replicas.get(needs.model, {}).values()
    candidates = [_candidate(replica, needs, now) for replica in replicas]
    candidates.sort(key=lambda each: (bool(each.left_out), each.cost, each.node))
    fit = [each for each in candidates if not each.left_out]
    out = [each for each in candidates if each.left_out]
    labels = "".join(f", {name}={value}" for name, value in sorted(needs.labels))
    return Explanation(
        dispatcher=dispatcher,
        model=needs.model,
        needs=f"{needs.demand}, {needs.prompt_tokens} tokens in, {needs.output_tokens} out{labels}",
        nodes=len(candidates),
        candidates=tuple(fit[:MAX_CANDIDATES] + out[:MAX_CANDIDATES]),
    )


def candidate_lines(index: ReplicaIndex, needs: Needs, now: float) -> list[str]:
    """The replicas of the model in one short line each, the best `MAX_LINES` of the first `MAX_LOOKED_AT`:
    the estimated seconds, the load, and why it was left out. It costs a tenth of `explain`."""
    found: list[tuple[bool, float, str]] = []
    for replica in islice(index.replicas.get(needs.model, {}).values(), MAX_LOOKED_AT):
        reason = left_out(replica, needs, now)
        cost = score(replica, needs, now).cost
        load = f"{replica.load.at_work} of {replica.load.info.slots} slots"
        line = f"{replica.id}: {cost:.3f} s, {load}{', ' if reason else ''}{reason}"
        found.append((bool(reason), cost, line))
    found.sort()
    return [line for _, _, line in found[:MAX_LINES]]


def _candidate(replica: Replica, needs: Needs, now: float) -> Candidate:
    candidates = score(replica, needs, now)
    load, rates = replica.load, replica.rates
    return Candidate(
        node=replica.id,
        cost=candidates.cost,
        service_s=candidates.service_s,
        tries=candidates.tries,
        slowdown=candidates.slowdown,
        affinity=candidates.affinity,
        doubt=candidates.doubt,
        at_work=load.at_work,
        slots=load.info.slots,
        decode_tokens_per_s=1 / rates.token_s if rates.token_s else 0.0,
        prefill_tokens_per_s=1 / rates.prompt_token_s if rates.prompt_token_s else 0.0,
        samples=rates.samples,
        breaker=replica.breaker.state(now).value,
        left_out=left_out(replica, needs, now),
    )


def left_out(replica: Replica, needs: Needs, now: float) -> str:
    """Why the replica cannot be chosen now; '' if it can."""
    if reason := replica.mismatch(needs):
        return reason
    load = replica.load
    if load.info.draining:
        return "it is draining"
    if load.silent:
        return "it does not answer pings"
    breaker = replica.breaker
    if breaker.state(now) is State.OPEN and replica.limit is not None:
        return f"its server refused work: not tried for another {breaker.until - now:.1f} s"
    if breaker.state(now) is State.OPEN:
        return f"it failed repeatedly: not tried for another {breaker.until - now:.1f} s"
    if not breaker.allows(now):
        return "it failed repeatedly, and one generation is testing it"
    if replica.barred:
        return "its memory is kept for other models for now"
    if not load.free:
        return f"all {load.info.slots} slots are taken"
    return ""
