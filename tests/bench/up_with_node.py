"""`orchestra up` with a node of the openai backend in the same process, as a process of its own.

python -m tests.bench.up_with_node --data DIR --http 127.0.0.1:8080 --upstream http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from actors.backends.base import Backend
from actors.cli.main import overrides_of
from actors.launch.process import configure_logging, run, stop_on_signals, until
from actors.launch.up import run_up
from actors.node.backend_factory import ServedName, openai_backend
from actors.settings import Settings, load


async def serve(settings: Settings, backend: Backend) -> int:
    """Run until a signal comes."""
    stop = stop_on_signals()
    async with run_up(settings, (), backends={"bench-node": backend}) as running:
        print(f"Orchestra is ready: {running.http_url}", flush=True)
        await until(stop, *running.watches)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--http", required=True)
    parser.add_argument("--upstream", required=True, help="Base URL.")
    parser.add_argument("--slots", type=int, default=64)
    options = parser.parse_args()
    settings, _ = load(overrides_of(data=options.data, gateway__http=options.http), None, find_running=False)
    configure_logging(settings.telemetry)
    values = {"base_url": options.upstream, "slots": options.slots}
    return run(serve(settings, openai_backend([ServedName.parse("bench=bench")], values)))


if __name__ == "__main__":
    raise SystemExit(main())
