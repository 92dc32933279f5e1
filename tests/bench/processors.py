"""The error of a product on emulated processors, where `qemu-x86_64` is installed (Debian: qemu-user).

`python -m tests.bench.processors` multiplies by 4-bit and 8-bit weights in the graph's forms on this
processor and on older ones, with 1, 2 and 8 rows, against float64. Exits with 1 where one is off by more
than `MOST`. The emulator knows no AVX-512: that takes a machine that has it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from onnx import TensorProto

from actors.models.graph import GraphWriter
from actors.models.weights import BlockWeights

PROCESSORS = ("Nehalem", "Haswell", "EPYC")
"""Without AVX, with AVX2 by Intel, and by AMD."""
FORMS = ((4, 32), (8, 32), (8, 16))
"""Bits and columns of a block."""
MOST = 1e-3
"""Largest error, as a part of the products' spread; rounding activations to 8 bits makes 2e-2 of it."""
ROWS, COLUMNS, OUTPUTS = 8, 576, 96


def weights(bits: int, block: int, generator: np.random.Generator) -> BlockWeights:
    codes = generator.integers(0, 256, (OUTPUTS, COLUMNS // block, block * bits // 8)).astype(np.uint8)
    scales = generator.random((OUTPUTS, COLUMNS // block)).astype(np.float32)
    return BlockWeights(bits=bits, block=block, codes=codes, scales=scales, offsets=scales / 2)


def errors(bits: int, block: int) -> list[float]:
    """For 1, 2 and 8 rows."""
    generator = np.random.default_rng(bits + block)
    matrix = weights(bits, block, generator)
    with TemporaryDirectory() as folder, GraphWriter(Path(folder)) as writer:
        writer.input("x", TensorProto.FLOAT, ["rows", 1, COLUMNS])
        writer.linear("x", "y", matrix)
        writer.output("y", TensorProto.FLOAT, ["rows", 1, OUTPUTS])
        writer.save("bench")
        session = ort.InferenceSession(str(Path(folder) / "model.onnx"))
    x = generator.normal(size=(ROWS, 1, COLUMNS)).astype(np.float32)
    x[:, :, ::37] *= 20  # real activations have outliers
    wanted = x[:, 0].astype(np.float64) @ matrix.values().astype(np.float64).T
    return [
        float(np.abs(session.run(None, {"x": x[:rows]})[0][:, 0] - wanted[:rows]).max() / wanted.std())
        for rows in (1, 2, ROWS)
    ]


def main() -> int:
    """Tell the errors here; without arguments on the emulated processors too. The exit status."""
    worst = 0.0
    for bits, block in FORMS:
        told = errors(bits, block)
        worst = max(worst, *told)
        print(
            f"  {bits} bits in blocks of {block}: " + ", ".join(f"{error:.1e}" for error in told), flush=True
        )
    status = int(worst > MOST)
    emulator = shutil.which("qemu-x86_64")
    for processor in PROCESSORS if emulator and not sys.argv[1:] else ():
        print(processor, flush=True)
        command = [str(emulator), "-cpu", processor, sys.executable, "-m", "tests.bench.processors", "here"]
        # The emulator's own warnings, a dozen for each process, are of no use.
        status |= subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
