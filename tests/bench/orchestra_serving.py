"""Orchestra as people start it, for measurements: `orchestra up`, and nodes beside it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from tests.bench.serving import Serving, free_port, started

ORCHESTRA = (sys.executable, "-m", "actors.cli")


@contextmanager
def serve_orchestra(
    node: Sequence[str],
    model: str = "bench",
    command: Sequence[str] = ORCHESTRA,
    env: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """`orchestra up` without a model, and one `orchestra node` with the options `node` that serves `model`.

    Two processes, as on two machines; the queue, its records and acknowledgements are all in the path.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestra-bench-"))
        common = ["--data", data]
        up = stack.enter_context(
            started([*command, "up", *common, "--no-model", "--http", f"127.0.0.1:{port}"], env)
        )
        line = up.wait_for_line("Orchestra is ready")
        nats = next(word for word in line.split() if word.startswith("nats://"))
        joined = stack.enter_context(started([*command, "node", *common, "--nats", nats, *node], env))
        try:
            joined.wait_for_model(url, model)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n--- orchestra up:\n{up.tail()}") from error
        yield Serving(name="Orchestra", url=url, roots=(up.process.pid, joined.process.pid))


@contextmanager
def serve_orchestra_with_node(upstream: str) -> Iterator[Serving]:
    """`orchestra up` whose own node serves the models of `upstream` (a base URL)."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestra-bench-"))
        options = ["--data", data, "--no-model", "--http", f"127.0.0.1:{port}", "--base-url", upstream]
        up = stack.enter_context(started([*ORCHESTRA, "up", *options], {"ORCHESTRA_OPENAI__SLOTS": "64"}))
        up.wait_for_model(url, "bench")
        yield Serving(name="Orchestra, node in `up`", url=url, roots=(up.process.pid,))


def openai_node(upstream: str) -> list[str]:
    """Options of a node that hands `bench` to `upstream` (a base URL)."""
    return ["--backend", "openai", "--base-url", upstream, "--serve", "bench=bench", "--slots", "64"]


def echo_node() -> list[str]:
    """Options of a node whose `bench` is echo."""
    return ["--backend", "echo", "--serve", "bench", "--slots", "64"]
