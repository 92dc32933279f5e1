"""Starts one process of tritonserver, and returns once it takes requests."""

from __future__ import annotations

import os

import aiohttp

from actors.child_server import ChildProcess, spawn
from actors.triton.check import check_server
from actors.triton.errors import TritonError, TritonPortInUse
from actors.triton.files import TritonFiles
from actors.triton.launch import HOST, Ports, command, sweep
from actors.triton.prepare import Prepared
from actors.triton.settings import TritonServerSettings

_POLL_S = 0.05
"""Triton is up within about 0.3 s, and sends no signal."""


async def launch(
    prepared: Prepared, settings: TritonServerSettings, files: TritonFiles, ports: Ports
) -> ChildProcess:
    """Start the server and wait until it takes requests; no model is loaded then.

    Raises `TritonPortInUse`, `WrongVersion`, or a `TritonError` with the end of the server's log.
    """
    sweep(settings.data)
    files.rotate(settings.max_log_bytes)
    start = files.log_bytes()
    try:
        with files.log.open("ab") as log:
            server = await spawn(command(prepared, settings, ports), os.environ | prepared.environment, log)
    except OSError as error:
        raise TritonError(f"cannot start {prepared.binary}: {error}") from error
    async with server.stopped_on_error(settings.stop_timeout_s):
        await _until_ready(server, settings, files, ports, start)
    return server


async def _until_ready(
    server: ChildProcess, settings: TritonServerSettings, files: TritonFiles, ports: Ports, log_start: int
) -> None:
    base = f"http://{HOST}:{ports.http}"
    metrics = f"http://{HOST}:{ports.metrics}/metrics"  # the last port that opens
    async with aiohttp.ClientSession() as http:

        async def healthy() -> bool | None:
            try:
                async with http.get(f"{base}/v2/health/ready") as answer, http.get(metrics):
                    if answer.status != 200:
                        return None
            except aiohttp.ClientError:
                return None
            await check_server(http, base)
            return True

        try:
            if await server.ready(healthy, within_s=settings.start_timeout_s, poll_s=_POLL_S):
                return
        except TimeoutError:
            raise TritonError(
                f"tritonserver was not ready within start_timeout_s {settings.start_timeout_s:g}; "
                f"{files.log_end(log_start)}"
            ) from None
    log_end = files.log_end(log_start)
    if "in use" in log_end.partition("\n")[2].lower():
        raise TritonPortInUse(f"another program took a port of tritonserver while it started; {log_end}")
    raise TritonError(f"tritonserver ended with {server.exit_code} before it was ready; {log_end}")
