"""LiteLLM's proxy as a rival: in an environment of its own, one worker, no database."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.serving import Serving, free_port, started

# Pinned: 1.82.7, 1.82.8 and 1.107.0 were published by thieves, and newer ones ask for a certifi that is not
# everywhere yet. `ORCHESTRA_BENCH_LITELLM` takes another version.
VERSION = os.environ.get("ORCHESTRA_BENCH_LITELLM", "1.102.4")

_CONFIG = """\
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: {upstream}
      api_key: none
litellm_settings:
  telemetry: false
  request_timeout: 60
"""


def installed() -> Path:
    """LiteLLM's command, installed into a cache folder when it is missing (about 1 GB, minutes)."""
    cache = Path(os.environ.get("ORCHESTRA_BENCH_CACHE", "~/.cache/orchestra-bench")).expanduser()
    folder = cache / f"litellm-{VERSION}"
    done = folder / "installed"
    if not done.exists():
        print(f"installing litellm[proxy]=={VERSION} into {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"litellm[proxy]=={VERSION}"], check=True)
        done.touch()
    return folder / "bin" / "litellm"


@contextmanager
def serve_litellm(upstream: str) -> Iterator[Serving]:
    """The proxy before `upstream` (a base URL), serving its model `bench`."""
    command, port = installed(), free_port()
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(_CONFIG.format(upstream=upstream))
        options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        environment = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
            # Its price list comes with the package; without this it asks the network at every start.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DISABLE_ADMIN_UI": "True",
        }
        url = f"http://127.0.0.1:{port}"
        with started([str(command), *options], environment) as server:
            server.wait_for_model(url, "bench")
            yield Serving(name=f"LiteLLM {VERSION}", url=url, roots=(server.process.pid,))
