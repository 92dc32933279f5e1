"""One process of tritonserver: started behind the leash, watched until it is ready, ended in good order."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

import aiohttp

from actors.nats_server.process import ServerProcess, spawn
from actors.triton.check import check_server
from actors.triton.errors import TritonError, TritonPortInUse
from actors.triton.files import TritonFiles
from actors.triton.launch import HOST, Ports, command, sweep
from actors.triton.prepare import Prepared
from actors.triton.settings import TritonServerSettings

_POLL_S = 0.05
"""Triton is up within about 0.3 s and tells nobody."""


async def launch(
    prepared: Prepared,
    settings: TritonServerSettings,
    files: TritonFiles,
    ports: Ports,
    *,
    use_pipe: bool = not sys.platform.startswith("linux"),
) -> ServerProcess:
    """Start the server and wait until it takes requests; no model is loaded then.

    Raises `TritonPortInUse`, `WrongVersion`, or a `TritonError` with the end of the server's log.
    """
    sweep(settings.data)
    files.rotate(settings.max_log_bytes)
    start = files.log_bytes()
    try:
        server = await _spawn(prepared, settings, files, ports, use_pipe)
    except OSError as error:
        raise TritonError(f"cannot start {prepared.binary}: {error}") from error
    try:
        await _ready(server, settings, files, ports, start)
    except BaseException:
        await server.stop(settings.stop_timeout_s)
        raise
    return server


async def _spawn(
    prepared: Prepared, settings: TritonServerSettings, files: TritonFiles, ports: Ports, use_pipe: bool
) -> ServerProcess:
    with files.log.open("ab") as log:
        server = await spawn(
            lambda reading: command(prepared, settings, ports, lifeline=reading),
            os.environ | prepared.environment,
            log,
            use_pipe=use_pipe,
        )
    server.port = ports.grpc
    return server


async def _ready(
    server: ServerProcess, settings: TritonServerSettings, files: TritonFiles, ports: Ports, log_start: int
) -> None:
    base = f"http://{HOST}:{ports.http}"
    metrics = f"http://{HOST}:{ports.metrics}/metrics"  # the last to listen
    try:
        async with asyncio.timeout(settings.start_timeout_s), aiohttp.ClientSession() as http:
            while server.process.returncode is None:
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{base}/v2/health/ready") as answer, http.get(metrics):
                        if answer.status == 200:
                            await check_server(http, base)
                            return
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise TritonError(
            f"tritonserver was not ready within start_timeout_s {settings.start_timeout_s:g}; "
            f"the end of its log {files.log}:\n{files.log_tail(log_start)}"
        ) from None
    tail = files.log_tail(log_start)
    if "in use" in tail.lower():
        raise TritonPortInUse(
            f"somebody took a port of tritonserver's meanwhile; its log {files.log}:\n{tail}"
        )
    raise TritonError(
        f"tritonserver ended with {server.process.returncode} before it was ready; "
        f"the end of its log {files.log}:\n{tail}"
    )
