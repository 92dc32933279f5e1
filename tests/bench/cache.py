"""A kept answer against one that has to be made: requests a second and p99, in the same run.

    python -m tests.bench.cache [--rounds 3] [--seconds 4]

Every way is measured in turn, alone and 32 at once, before one `orchestra up` and one echo node, whose
answers cost nothing: what is compared is the path, and the cache could not look worse. The last way waits
for a node that says 100 tokens a second, as a small model would.

- hit: the same deterministic chat, kept in the gateway's process
- miss: deterministic chats whose kept answer is always too old: looked up in both caches, made, kept again
- not kept: the same chat with `no_store`, the plain path
- paced: not kept, at 100 tokens a second
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tests.bench.load import Load, measure
from tests.bench.orchestra_serving import echo_node, serve_orchestra

WIDTHS = (1, 32)
TOO_OLD_S = 1e-6


@dataclass(frozen=True, slots=True)
class Way:
    """How one kind of request differs from the others."""

    name: str
    more: dict[str, Any]
    distinct: bool = False
    paced: bool = False


WAYS = (
    Way("hit", {"temperature": 0}),
    Way("miss", {"temperature": 0, "cache": {"ttl": TOO_OLD_S}}, distinct=True),
    Way("not kept", {"temperature": 0, "cache": {"no_store": True}}),
    Way("not kept, paced", {"temperature": 0, "cache": {"no_store": True}}, paced=True),
)


def main() -> None:
    """Print the table, medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    loads: dict[tuple[int, str], list[Load]] = defaultdict(list)
    with ExitStack() as stack:
        quick = stack.enter_context(serve_orchestra(echo_node())).chat_url
        paced = stack.enter_context(serve_orchestra([*echo_node(), "--speed", "100"])).chat_url
        for way in WAYS:
            measure(paced if way.paced else quick, model="bench", at_once=8, seconds=1, more=way.more)
        for _ in range(options.rounds):
            for at_once in WIDTHS:
                for way in WAYS:
                    load = measure(
                        paced if way.paced else quick,
                        model="bench",
                        at_once=at_once,
                        seconds=options.seconds,
                        more=way.more,
                        distinct=way.distinct,
                    )
                    loads[at_once, way.name].append(load)
    print(f"{'':18} {'at once':>7} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8}")
    for (at_once, name), measured in loads.items():
        rate = statistics.median(load.per_second for load in measured)
        p50 = statistics.median(load.p50_ms for load in measured)
        p99 = statistics.median(load.p99_ms for load in measured)
        print(f"{name:18} {at_once:>7} {rate:>9.0f} {p50:>8.2f} {p99:>8.2f}")


if __name__ == "__main__":
    main()
