"""`orchestra up`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from actors.cli.main import common, overrides_of
from actors.cli.progress import agents_embedder, pull_model
from actors.config.data_folders import register_data_folder
from actors.gateway.http import HttpServer
from actors.launch.process import configure_logging, ignore_hangup, run, stop_on_signals, until
from actors.launch.up import refuse_to_start, run_up
from actors.settings import Settings, load
from orchestration.errors import InvalidRequest


@click.command()
@common
@click.option(
    "--http", "gateway__http", metavar="HOST:PORT", help="Address of the HTTP API. [default: 127.0.0.1:8080]"
)
@click.option("--nats", "nats__url", metavar="URL", help="Use a running NATS server instead of starting one.")
@click.option(
    "--join",
    "nats_server__join",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Another machine of the cluster, with `orchestra up --join`; repeatable. [default port: 6222]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Model to serve; repeatable. [default: smollm2-135m]",
)
@click.option("--no-model", is_flag=True, help="Serve no model on this machine.")
@click.option(
    "--base-url",
    "openai__base_url",
    metavar="URL",
    help="Serve the models of a server with the OpenAI API too, such as http://HOST:8000/v1.",
)
@click.option(
    "--api-key-env",
    "openai__api_key_env",
    metavar="VAR",
    help="Environment variable with the API key of that server.",
)
def up(config_file: Path | None, data: Path | None, no_model: bool, **values: Any) -> None:
    """Start a whole cluster on this machine: NATS, nodes, agents, a dispatcher and a gateway.

    Prints one line when it is ready. Ctrl-C finishes the requests in flight and stops.
    """
    if values["nats_server__join"] and values["nats__url"]:
        raise InvalidRequest("--join starts a NATS server of its own and --nats uses another: choose one")
    settings, origins = load(overrides_of(data=data, **values), config_file, find_running=False)
    configure_logging(settings.telemetry)
    ignore_hangup()
    refuse_to_start(settings)
    http_server = HttpServer(settings.gateway)  # binds its port before a model is downloaded
    names = () if no_model else settings.models
    folders = [pull_model(name, settings.models_folder) for name in names]
    raise SystemExit(run(_up(settings, folders, http_server, origins)))


async def _up(
    settings: Settings, folders: list[Path], http_server: HttpServer, origins: Mapping[str, str]
) -> int:
    stop = stop_on_signals()
    embedder = agents_embedder(settings)
    async with run_up(settings, folders, embedder, http_server, origins=origins) as running:
        serving = ", ".join(running.models) or "no model here"
        with register_data_folder(settings.folder):
            click.echo(f"Orchestra is ready: {running.http_url} · {running.nats_url} · {serving}")
            await until(stop, *running.watches)
    return 0
