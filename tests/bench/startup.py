"""Warm start of `orchestra up` to ready, and what it holds in memory, with and without a model."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import psutil

from tests.fixtures.models import smollm2_folder
from tests.fixtures.process import orchestra

ROUNDS = 5
LIMIT_READY_S = 4.0
LIMIT_BARE_MB = 150.0


def measure(data: Path, *words: str) -> tuple[float, float, float]:
    """Seconds to ready, and resident megabytes of `orchestra up` and of its nats-server."""
    began = time.perf_counter()
    with orchestra("up", "--data", str(data), "--http", "127.0.0.1:0", *words) as process:
        process.wait_for("Orchestra is ready")
        ready = time.perf_counter() - began
        up = psutil.Process(process.pid)
        server = sum(child.memory_info().rss for child in up.children())
        return ready, up.memory_info().rss / 1e6, server / 1e6


def data_with_model(folder: Path) -> Path:
    """A data folder whose models are the tests' own, linked."""
    (folder / "models").mkdir()
    model = smollm2_folder()
    (folder / "models" / model.name).symlink_to(model)
    return folder


def main() -> None:
    """Print the table."""
    rows: dict[str, list[tuple[float, float, float]]] = {"with smollm2-135m": [], "without a model": []}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        data = data_with_model(Path(one))
        for _ in range(ROUNDS):
            rows["with smollm2-135m"].append(measure(data))
            rows["without a model"].append(measure(Path(other), "--no-model"))
    head = ("ready s", "of limit", "RSS MB", "of limit", "nats-server MB")
    print(f"{'orchestra up':20}" + "".join(f"{word:>15}" for word in head))
    for name, values in rows.items():
        ready, memory, server = (statistics.median(column) for column in zip(*values, strict=True))
        bound = f"{memory / LIMIT_BARE_MB:.2f}" if name.startswith("without") else "-"
        cells = (f"{ready:.2f}", f"{ready / LIMIT_READY_S:.2f}", f"{memory:.0f}", bound, f"{server:.0f}")
        print(f"{name:20}" + "".join(f"{cell:>15}" for cell in cells))
    print(f"medians of {ROUNDS}; limits: ready {LIMIT_READY_S:g} s, {LIMIT_BARE_MB:g} MB without a model")


if __name__ == "__main__":
    main()
