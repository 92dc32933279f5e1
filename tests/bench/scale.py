"""A cluster of 1,000 nodes on one NATS server against one of four: what grows faster than the cluster?

    python -m tests.bench.scale [--nodes 1000] [--models 500] [--gateways 10] [--dispatchers 10]

Four real nodes serve `bench` through an `echo` backend; the others are entries in the registry, renewed as a
node renews them, many to a process. With four nodes and then with all it prints, for each kind of process,
CPU and messages per second at rest and memory, the consumers in JetStream, and requests per second through
one gateway at 32 at once: what remains of two cores beside 25 other processes. Where those have cores of
their own, requests per CPU-second of the gateway and the nodes are what counts. Then how long all gateways
and dispatchers take to see a node that joins, and one that is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any

import psutil

from actors.nats_server.files import ServerFiles
from actors.nats_server.launch import command, environment, find_binary
from actors.nats_server.settings import NatsServerSettings
from tests.bench.load import measure
from tests.bench.orchestra_serving import ORCHESTRA, echo_node
from tests.bench.serving import Serving, free_port, started

REST_S = 10.0
LOAD_S = 4.0
ROUNDS = 3
FLEETS = 4
REAL_NODES = 4


@dataclass(slots=True)
class Member:
    """A process of `scale_members`, and what it printed."""

    kind: str
    process: subprocess.Popen[bytes]
    lines: queue.Queue[str] = field(default_factory=queue.Queue)

    def read(self, output: IO[bytes]) -> None:
        for line in output:
            self.lines.put(line.decode().strip())
        self.lines.put("ended")

    def wait(self, word: str, timeout_s: float = 180) -> list[str]:
        """The words of the next line that begins with `word`; other lines are dropped."""
        until = time.monotonic() + timeout_s
        while True:
            found = self.lines.get(timeout=max(0.01, until - time.monotonic())).split()
            if found[:1] == [word]:
                return found
            if found == ["ended"]:
                raise RuntimeError(f"a {self.kind} ended; its error is above")

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()


@dataclass(frozen=True, slots=True)
class NatsUnderTest:
    """The server, its monitoring page, and its process."""

    url: str
    monitor: str
    pid: int

    def page(self, name: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.monitor}/{name}", timeout=10) as answer:
            page: dict[str, Any] = json.load(answer)
            return page

    def messages(self) -> dict[str, int]:
        """Messages so far from and to each kind of process, by the names of their connections."""
        found: dict[str, int] = {}
        for each in self.page("connz?limit=4096")["connections"]:
            kind = str(each.get("name", "")).removeprefix("scale-").partition(" ")[0]
            found[kind] = found.get(kind, 0) + each["in_msgs"] + each["out_msgs"]
        return found

    def consumers(self) -> int:
        return int(self.page("jsz")["consumers"])


@contextmanager
def serve_nats(folder: Path) -> Iterator[NatsUnderTest]:
    port, monitor = free_port(), free_port()
    settings = NatsServerSettings(data=folder, name="scale", host="127.0.0.1", monitor_port=monitor)
    files = ServerFiles(folder)
    files.prepare()
    with started(command(binary=find_binary()), environment(settings, files, port=port)) as server:
        page = f"http://127.0.0.1:{monitor}"
        for _ in range(100):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{page}/healthz", timeout=1):
                break
            time.sleep(0.1)
        yield NatsUnderTest(f"nats://127.0.0.1:{port}", page, server.process.pid)


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests per second through one gateway, and the CPU of that gateway and the nodes for each in ms."""

    per_second: float
    cpu_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return (
            f"{self.per_second:.0f} requests/s at 32 at once, {self.cpu_ms:.2f} ms CPU of gateway and nodes "
            f"each; p99 of one after another {self.p99_ms:.1f} ms"
        )


@dataclass(slots=True)
class ScaleCluster:
    """The processes of the cluster."""

    nats: NatsUnderTest
    folder: Path
    stack: ExitStack
    members: list[Member] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    """The process ids of the real nodes."""
    url: str = ""

    def start(self, kind: str, *options: str) -> Member:
        common = ["--nats", self.nats.url, "--data", str(self.folder)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.scale_members", kind, *common, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        member = Member(kind, process)
        assert process.stdout is not None
        threading.Thread(target=member.read, args=(process.stdout,), daemon=True).start()
        self.members.append(member)
        return member

    def of(self, kind: str) -> list[Member]:
        return [member for member in self.members if member.kind == kind]

    @property
    def watchers(self) -> list[Member]:
        return self.of("gateway") + self.of("dispatcher")

    def wait_for_nodes(self, count: int) -> float:
        """Seconds until every gateway and dispatcher has `count` nodes."""
        began = time.monotonic()
        for member in self.watchers:
            while True:
                member.tell("count")
                if int(member.wait("nodes")[1]) >= count:
                    break
                time.sleep(0.1)
        return time.monotonic() - began

    def rest(self) -> list[str]:
        """Lines of a table: what each kind of process uses while nothing is asked."""
        pids = {
            kind: [each.process.pid for each in self.of(kind)] for kind in ("gateway", "dispatcher", "fleet")
        }
        processes = {kind: [psutil.Process(pid) for pid in found] for kind, found in pids.items() if found}
        processes["nats-server"] = [psutil.Process(self.nats.pid)]

        def cpu() -> dict[str, float]:
            return {
                kind: sum(sum(each.cpu_times()[:2]) for each in found) for kind, found in processes.items()
            }

        before, messages, began = cpu(), self.nats.messages(), time.monotonic()
        time.sleep(REST_S)
        after, more, taken = cpu(), self.nats.messages(), time.monotonic() - began
        lines = []
        for kind, found in processes.items():
            percent = (after[kind] - before[kind]) / taken / len(found) * 100
            rate = (more.get(kind, 0) - messages.get(kind, 0)) / taken / len(found)
            mib = sum(each.memory_info().rss for each in found) / len(found) / 2**20
            told = (
                f"{rate:8.0f}"
                if kind != "nats-server"
                else f"{sum(more.values()) / taken - sum(messages.values()) / taken:8.0f}"
            )
            lines.append(f"  {kind:<12}{percent:7.1f} %{told}{mib:8.0f}")
        return lines

    def requests(self) -> Requests:
        """Medians of some rounds of load on the first gateway."""
        roots = (self.of("gateway")[0].process.pid, *self.nodes)
        server = Serving(name="gateway", url=self.url, roots=roots)
        rates, cpu_ms, p99_ms = [], [], []
        for _ in range(ROUNDS):
            before = server.cpu_s()
            load = measure(server.chat_url, model="bench", at_once=32, seconds=LOAD_S)
            rates.append(load.per_second)
            cpu_ms.append((server.cpu_s() - before) / load.requests * 1e3)
            p99_ms.append(measure(server.chat_url, model="bench", at_once=1, seconds=LOAD_S).p99_ms)
        return Requests(median(rates), median(cpu_ms), median(p99_ms))

    def end_fleets(self) -> None:
        """End all fleets as a crash would, and wait until their nodes are gone."""
        for fleet in self.of("fleet"):
            fleet.process.kill()
            self.members.remove(fleet)
        for member in self.watchers:
            while True:
                member.tell("count")
                if int(member.wait("nodes")[1]) <= REAL_NODES:
                    break
                time.sleep(0.5)

    def probe(self) -> tuple[float, float]:
        """Seconds until all have seen a node that joins, and one whose process is killed."""
        fleet = self.start("fleet", "--count", "0")
        fleet.wait("ready")
        began = time.monotonic_ns()
        fleet.tell("probe-1")
        joined = max(int(member.wait("seen")[3]) for member in self.watchers)
        fleet.wait("added")
        time.sleep(3)
        killed = time.monotonic_ns()
        fleet.process.kill()
        left = max(int(member.wait("seen")[3]) for member in self.watchers)
        self.members.remove(fleet)
        return (joined - began) / 1e9, (left - killed) / 1e9


def show(cluster: ScaleCluster, title: str) -> Requests:
    """Print the state of the cluster, and measure requests."""
    print(f"{title}\n  {'each':<12}{'CPU':>9}{'msg/s':>8}{'MiB':>8}", flush=True)
    print("\n".join(cluster.rest()))
    print(f"  {cluster.nats.consumers()} consumers in JetStream", flush=True)
    requests = cluster.requests()
    print(f"  {requests}", flush=True)
    return requests


def compare(options: argparse.Namespace, stack: ExitStack) -> None:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestra-bench-")))
    nats = stack.enter_context(serve_nats(folder / "nats"))
    cluster = ScaleCluster(nats, folder, stack)
    first = cluster.start("gateway")
    cluster.url = first.wait("http")[1]
    for _ in range(options.gateways - 1):
        cluster.start("gateway")
    for _ in range(options.dispatchers):
        cluster.start("dispatcher")
    for member in cluster.members:
        member.wait("ready")
    for number in range(REAL_NODES):
        node = [
            "node",
            "--data",
            str(folder / f"node-{number}"),
            "--nats",
            nats.url,
            "--id",
            f"real-{number}",
        ]
        running = stack.enter_context(started([*ORCHESTRA, *node, *echo_node()]))
        cluster.nodes.append(running.process.pid)
    cluster.wait_for_nodes(REAL_NODES)
    cluster.requests()
    few = show(cluster, f"{REAL_NODES} nodes, 1 model")
    each = (options.nodes - REAL_NODES) // FLEETS
    began = time.monotonic()
    for number in range(FLEETS):
        rest = [
            "--first",
            str(number * each),
            "--count",
            str(each),
            "--models",
            str(options.models - 1),
        ]  # and bench
        cluster.start("fleet", *rest)
    for member in cluster.of("fleet"):
        member.wait("ready")
    filled = time.monotonic() - began
    late = cluster.wait_for_nodes(REAL_NODES + FLEETS * each)
    print(f"{FLEETS * each} nodes more joined in {filled:.1f} s; all saw them {late:.1f} s later", flush=True)
    time.sleep(options.settle_s)
    many = show(cluster, f"{options.nodes} nodes, {options.models} models")
    joined, left = cluster.probe()
    print(f"  a join was seen by all after {joined:.2f} s, a killed node after {left:.1f} s", flush=True)
    cluster.end_fleets()
    again = cluster.requests()
    print(f"{REAL_NODES} nodes again\n  {again}")
    rate = many.per_second / ((few.per_second + again.per_second) / 2)
    cpu = many.cpu_ms / ((few.cpu_ms + again.cpu_ms) / 2)
    print(f"{options.nodes} nodes over {REAL_NODES}: requests/s {rate:.2f}, per CPU-second {1 / cpu:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--gateways", type=int, default=10)
    parser.add_argument("--dispatchers", type=int, default=10)
    parser.add_argument("--settle-s", type=float, default=5)
    options = parser.parse_args()
    with ExitStack() as stack:
        compare(options, stack)


if __name__ == "__main__":
    main()
