"""From `git clone` and `make up`, with nothing cached, to the first streamed token."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import openai

ROOT = Path(__file__).parents[2]
LIMIT_S = 180.0


def main() -> None:
    """Print when each stage was reached, in seconds from the start."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "orchestra"
        began = time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        arguments = f"ARGS=--http 127.0.0.1:0 --data {folder}/data"
        process = subprocess.Popen(
            ["make", "up", arguments, f"PYTHON={sys._base_executable}"],  # type: ignore[attr-defined]
            cwd=clone,
            env=os.environ | {"PIP_NO_CACHE_DIR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "Orchestra is ready" in line)
            ready = time.perf_counter() - began
            found = re.search(r"http://\S+", line)
            assert found is not None
            client = openai.OpenAI(base_url=f"{found[0]}/v1", api_key="none")
            stream = client.chat.completions.create(
                model="smollm2-135m", messages=[{"role": "user", "content": "Say hello."}], stream=True
            )
            next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
            first = time.perf_counter() - began
            stream.close()
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
    print(f"ready {ready:.1f} s, first streamed token {first:.1f} s")
    print(f"{first / LIMIT_S:.2f} of the limit of {LIMIT_S:g} s")


if __name__ == "__main__":
    main()
