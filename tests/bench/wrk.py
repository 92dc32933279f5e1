"""`wrk` (a Debian package) as the load generator: it costs a tenth of a Python client's CPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import chat_body
from tests.bench.serving import Serving

_SCRIPT = """\
wrk.method = "POST"
wrk.body = [==[{body}]==]
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\\nRESULT %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), e.status + e.connect + e.read + e.write + e.timeout))
end
"""


class WrkMissing(Exception):
    """`wrk` is not on PATH."""

    def __init__(self) -> None:
        super().__init__("wrk is not on PATH; install it: apt-get install wrk, or brew install wrk")


@dataclass(frozen=True, slots=True)
class WrkLoad:
    """What one round measured."""

    requests: int
    per_second: float
    p50_ms: float


def require_wrk() -> None:
    """Raise `WrkMissing` if it cannot be run."""
    if shutil.which("wrk") is None:
        raise WrkMissing


def wrk(server: Serving, *, at_once: int, seconds: float, stream: bool = False) -> WrkLoad:
    """Send the same chat on `at_once` connections. Raises `RuntimeError` if any request failed."""
    body = chat_body(server.model, stream=stream).decode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer bench", **server.headers}
    lines = "\n".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()
    )
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        script = Path(folder) / "chat.lua"
        script.write_text(_SCRIPT.format(body=body, headers=lines))
        command = ["wrk", "-t1", f"-c{at_once}", f"-d{round(seconds)}s", "--timeout", "10s"]
        done = subprocess.run(
            [*command, "-s", str(script), server.chat_url], capture_output=True, text=True, check=True
        )
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    requests, taken_us, p50_us, errors = map(int, result.split()[1:])
    if errors or not requests:
        raise RuntimeError(f"{errors} errors in {requests} requests at {server.chat_url}:\n{done.stdout}")
    return WrkLoad(requests, requests / taken_us * 1e6, p50_us / 1e3)
