"""Gateways that others publish, each installed into a cache folder of its own and started before an upstream.

`ORCHESTRA_BENCH_CACHE` moves the folder (`~/.cache/orchestra-bench`). LiteLLM takes about 1 GB, the others
130 to 150 MB each. A peer that cannot be had raises `PeerMissing`, and the benchmark goes on without it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.serving import Serving, free_port, started

VLLM_ROUTER = "0.1.17"
TENSORZERO = "2026.6.0"
PORTKEY = "1.15.2"
LITELLM = os.environ.get("ORCHESTRA_BENCH_LITELLM", "1.108.7")
"""1.82.7, 1.82.8 and 1.107.0 were published by thieves: never take these."""

_TENSORZERO_TOML = """\
[gateway]
observability.enabled = false
[models.bench]
routing = ["upstream"]
[models.bench.providers.upstream]
type = "openai"
model_name = "bench"
api_base = "{upstream}"
api_key_location = "none"
"""
_TENSORZERO_MAIN = """\
import sys, threading
from tensorzero import _start_http_gateway
nothing = dict.fromkeys(("clickhouse_url", "postgres_url", "valkey_url"))
gateway = _start_http_gateway(config_file=sys.argv[1], async_setup=False, **nothing)
print("LISTENING", gateway.base_url, flush=True)
threading.Event().wait()
"""
_LITELLM_YAML = """\
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
_LOOPBACK_JS = """\
const { Server } = require('net'), listen = Server.prototype.listen
Server.prototype.listen = function (port, host, done) { return listen.call(this, port, '127.0.0.1', done) }
"""
"""Portkey listens on every interface and has no option for it."""


class PeerMissing(Exception):
    """A peer cannot be installed here; the text says why."""


def _install(name: str, commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Run the commands unless they were all done before."""
    done = folder / "installed"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"installing {name} into {folder}", file=sys.stderr, flush=True)
    for command in commands:
        try:
            subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True, timeout=900)
        except FileNotFoundError:
            raise PeerMissing(f"{command[0]} is not on PATH") from None
        except subprocess.TimeoutExpired:
            raise PeerMissing(f"{command[0]} did not end within 900 s") from None
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if line.strip()]
            raise PeerMissing(lines[-1] if lines else f"{command[0]} ended with {error.returncode}") from None
    done.touch()


def _cache(name: str) -> Path:
    return Path(os.environ.get("ORCHESTRA_BENCH_CACHE", "~/.cache/orchestra-bench")).expanduser() / name


def _from_pypi(name: str, version: str, extra: str = "") -> Path:
    """The `bin` folder of an environment that holds the package."""
    folder = _cache(f"{name}-{version}")
    environment = folder / "venv"
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    requirement = f"{name}{extra}=={version}"
    _install(requirement, [[sys.executable, "-m", "venv", str(environment)], [*pip, requirement]], folder)
    return environment / "bin"


@contextmanager
def serve_vllm_router(upstream: str) -> Iterator[Serving]:
    """vllm-router (Rust) with the upstream as its only worker."""
    command = _from_pypi("vllm-router", VLLM_ROUTER) / "vllm-router"
    port, url = free_port(), upstream.removesuffix("/v1")
    options = ["--host", "127.0.0.1", "--port", str(port), "--worker-urls", url, "--policy", "round_robin"]
    options += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    with started([str(command), *options, "--log-level", "error"]) as server:
        url = f"http://127.0.0.1:{port}"
        server.wait_for_model(url, "bench")
        yield Serving(name=f"vllm-router {VLLM_ROUTER} (Rust)", url=url, roots=(server.process.pid,))


@contextmanager
def serve_tensorzero(upstream: str) -> Iterator[Serving]:
    """TensorZero's gateway (Rust) as its Python package embeds it, without ClickHouse."""
    python = _from_pypi("tensorzero", TENSORZERO) / "python"
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        config = Path(folder) / "tensorzero.toml"
        config.write_text(_TENSORZERO_TOML.format(upstream=upstream))
        environment = {"TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS": "1"}
        with started([str(python), "-c", _TENSORZERO_MAIN, str(config)], environment) as server:
            base = server.wait_for_line("LISTENING").split()[1]
            yield Serving(
                name=f"TensorZero {TENSORZERO} (Rust)",
                url=base.removesuffix("/openai/v1"),
                roots=(server.process.pid,),
                prefix="/openai/v1",
                model="tensorzero::model_name::bench",
            )


@contextmanager
def serve_portkey(upstream: str) -> Iterator[Serving]:
    """Portkey's gateway (Node.js)."""
    if shutil.which("npm") is None:
        raise PeerMissing("npm is not on PATH: install Node.js 20 or newer")
    folder = _cache(f"portkey-{PORTKEY}")
    # Newer versions of @hono/node-server break it.
    wanted = {"@portkey-ai/gateway": PORTKEY, "@hono/node-server": "1.3.3"}
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    package = json.dumps({"dependencies": wanted, "overrides": {"@hono/node-server": "$@hono/node-server"}})
    write = [sys.executable, "-c", "import sys; open('package.json', 'w').write(sys.argv[1])", package]
    _install(f"@portkey-ai/gateway@{PORTKEY}", [write, install], folder)
    loopback = folder / "loopback.cjs"
    loopback.write_text(_LOOPBACK_JS)
    port = free_port()
    main = folder / "node_modules/@portkey-ai/gateway/build/start-server.js"
    with started(["node", "-r", str(loopback), str(main), f"--port={port}", "--headless"]) as server:
        server.wait_for_line("Ready for connections")
        yield Serving(
            name=f"Portkey {PORTKEY} (Node.js)",
            url=f"http://127.0.0.1:{port}",
            roots=(server.process.pid,),
            headers={"x-portkey-provider": "openai", "x-portkey-custom-host": upstream},
        )


@contextmanager
def serve_litellm(upstream: str) -> Iterator[Serving]:
    """LiteLLM's proxy (Python), one worker, no database."""
    command, port = _from_pypi("litellm", LITELLM, "[proxy]") / "litellm", free_port()
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(_LITELLM_YAML.format(upstream=upstream))
        options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        environment = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
            # Its price list comes with the package; without this it asks the network at every start.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DISABLE_ADMIN_UI": "True",
            # Without a key, as the others here; it listens on loopback.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }
        url = f"http://127.0.0.1:{port}"
        with started([str(command), *options], environment) as server:
            server.wait_for_model(url, "bench")
            yield Serving(name=f"LiteLLM {LITELLM} (Python)", url=url, roots=(server.process.pid,))
