"""10,000 jobs submitted at once to one machine: rates, and the memory of each process while they are done."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from actors.bus.bus import Bus, BusSettings
from actors.runtime.service_client import jobs_call
from tests.actors.jobs.client import chat
from tests.fixtures.process import Process, orchestra

JOBS = 10_000
ROUNDS = 3
"""Memory that grows with jobs grows in each of them; what is only warming up does not."""
AT_ONCE = 128
SAMPLE_S = 2.0


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def child_of(pid: int) -> int:
    """The first child of a process: the nats-server of `orchestra up`."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(children[0])


async def measure(url: str, pids: dict[str, int], count: int) -> None:
    """Submit, wait until all have ended, print the figures, and do it again."""
    bus = await Bus.connect(BusSettings(url=url), name="bench")
    done = 0

    def heard(message: object) -> None:
        nonlocal done
        done += b'"status":"succeeded"' in message.data  # type: ignore[attr-defined]

    await bus.subscribe("events.job.*", heard)
    places = asyncio.Semaphore(AT_ONCE)

    async def submit(number: int) -> None:
        async with places:
            priority = "batch" if number % 2 else "standard"
            await jobs_call(bus, "submit", chat(max_tokens=3, orchestra={"priority": priority}))

    for round_ in range(1, ROUNDS + 1):
        done = 0
        samples: dict[str, list[float]] = {name: [resident_mib(pid)] for name, pid in pids.items()}
        began = time.monotonic()
        submitting = asyncio.gather(*(submit(number) for number in range(count)))
        submitted = 0.0
        while done < count:
            await asyncio.sleep(SAMPLE_S)
            if submitting.done() and not submitted:
                submitting.result()
                submitted = time.monotonic() - began
            for name, pid in pids.items():
                samples[name].append(resident_mib(pid))
            if time.monotonic() - began > 600:
                raise SystemExit(f"only {done} of {count} jobs ended within 600 s")
        took = time.monotonic() - began
        print(
            f"round {round_}: {count} jobs accepted within {submitted:.0f} s, all ended after {took:.0f} s "
            f"({count / took:.0f}/s)"
        )
        for name, values in samples.items():
            print(
                f"{name:12} resident MiB: start {values[0]:.0f}, middle {values[len(values) // 2]:.0f}, "
                f"end {values[-1]:.0f}, most {max(values):.0f}"
            )
    await bus.close()


def main() -> None:
    """`python -m tests.bench.jobs [JOBS]`."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:

        def started(*words: str) -> tuple[Process, str]:
            process = stack.enter_context(orchestra(*words))
            return process, process.wait_for("Orchestra ")

        up, line = started("up", "--no-model", "--data", f"{folder}/up", "--http", "127.0.0.1:0")
        found = re.search(r"nats://\S+", line)
        assert found is not None, line
        node, _ = started("node", "--backend", "echo", "--nats", found[0], "--data", f"{folder}/node")
        pids = {"orchestra up": up.pid, "nats-server": child_of(up.pid), "echo node": node.pid}
        asyncio.run(measure(found[0], pids, count))


if __name__ == "__main__":
    main()
