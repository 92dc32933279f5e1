"""`orchestra node`, `agents`, `dispatcher` and `gateway`: one role each, with a running NATS server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click

from actors.backends.base import Backend
from actors.bus.bus import Bus
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply_when_ready
from actors.cli.drain import drain
from actors.cli.main import common, nats_option, overrides_of
from actors.cli.reach import nats_url_of
from actors.config.hot_settings import HotSettings
from actors.config.settings_follower import followed
from actors.launch.observability import observed
from actors.launch.process import (
    configure_logging,
    connected,
    ignore_hangup,
    raise_when_set,
    run,
    stop_on_signals,
    until,
)
from actors.node.backend_factory import (
    BACKENDS,
    ServedName,
    echo_backend,
    onnx_backend,
    openai_backend,
    openvino_backend,
    replay_backend,
)
from actors.runtime.system import ActorSystem
from actors.settings import Settings, load
from actors.telemetry.identity import ProcessIdentity
from orchestration.errors import InvalidRequest

Watch = Callable[[], Awaitable[object]]
_OPTIONS = {
    "openai": {"base_url", "api_key_env"},
    "echo": {"speed", "load_s", "model_mb"},
    "replay": {"speed", "records"},
}
"""Options of `orchestra node` by backend."""
Enter = Callable[
    [HotSettings[Settings], AsyncExitStack, Bus, ActorSystem], Awaitable[tuple[str, list[Watch]]]
]
"""Starts a role. Returns the line to print once it runs, and the conditions that end it."""


@click.group(invoke_without_command=True)
@common
@nats_option
@click.option("--backend", type=click.Choice(BACKENDS), help="Backend that runs the models.  [required]")
@click.option("--id", "node_id", help="Id of the node in the cluster. [default: BACKEND-HOST-RANDOM]")
@click.option(
    "--serve",
    multiple=True,
    metavar="NAME[=UPSTREAM]",
    help="Model to serve, and its name at the backend; repeatable.",
)
@click.option(
    "--label", "labels", multiple=True, metavar="K=V", help="Label that requests can ask for; repeatable."
)
@click.option(
    "--slots", type=click.IntRange(min=1), help="Maximum generations in progress. [default: the backend's]"
)
@click.option("--base-url", metavar="URL", help="openai: URL of the API, such as http://HOST:8000/v1.")
@click.option("--api-key-env", metavar="VAR", help="openai: environment variable with the API key.")
@click.option(
    "--triton-url", metavar="URL", help="triton: grpc://HOST:PORT of a server. [default: start one]"
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    metavar="TOKENS_PER_S",
    help="echo, replay: speed of each answer; 0: full speed. [default: echo 0, replay 300]",
)
@click.option(
    "--records",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="replay: file of recorded answers, in JSON lines.",
)
@click.option(
    "--load-s", type=click.FloatRange(min=0), metavar="SECONDS", help="echo: simulated time to load a model."
)
@click.option(
    "--model-mb", type=click.FloatRange(min=0), metavar="MB", help="echo: simulated memory of each model."
)
@click.option(
    "--memory-mb",
    type=click.FloatRange(min=0),
    metavar="MB",
    help="Memory for models; others are loaded on request. [default: the backend's]",
)
@click.pass_context
def node(
    context: click.Context,
    /,
    config_file: Path | None,
    data: Path | None,
    nats_url: str | None,
    backend: str | None,
    node_id: str | None,
    serve: tuple[str, ...],
    labels: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve models to a cluster from this machine; or drain a node with `drain ID`."""
    if context.invoked_subcommand is not None:
        return
    if backend is None:
        raise click.UsageError("Missing option '--backend'.")
    slots, memory_mb = options.pop("slots"), options.pop("memory_mb")
    settings, origins = load(
        overrides_of(
            data=data,
            nats__url=nats_url,
            node__id=node_id,
            node__slots=slots,
            node__memory_mb=memory_mb,
            node__labels=dict(_label(text) for text in labels) or None,
        ),
        config_file,
    )
    configure_logging(settings.telemetry)
    options_set = {name: value for name, value in options.items() if value is not None}
    make = _maker(backend, settings, [ServedName.parse(text) for text in serve], options_set, slots)

    async def enter(
        hot: HotSettings[Settings], stack: AsyncExitStack, bus: Bus, system: ActorSystem
    ) -> tuple[str, list[Watch]]:
        from actors.node.process import run_node

        serving, watches = await make(stack)
        running = await stack.enter_async_context(
            run_node(bus, serving, hot.settings.node, system, settings.models_folder)
        )
        names = ", ".join(card.name for card in serving.models)
        id_taken = raise_when_set(running.identity_lost, f"another node has taken the id {running.id}")
        return f"node {running.id} serves {names}", [id_taken, running.drained.wait, *watches]

    _serve(HotSettings(settings, origins), "node", enter)


node.add_command(drain)


def role(*options: Callable[[Any], Any], role_name: str = "") -> Callable[[Enter], click.Command]:
    """Make a command of a function that starts a role, with the function's name and docstring. An option has
    the name of its setting, with `__` for the dot. `role_name` is that of the process where it differs."""

    def command(enter: Enter) -> click.Command:
        def serve(config_file: Path | None, data: Path | None, nats_url: str | None, **more: Any) -> None:
            settings, origins = load(overrides_of(data=data, nats__url=nats_url, **more), config_file)
            configure_logging(settings.telemetry)
            _serve(HotSettings(settings, origins), role_name or enter.__name__, enter)

        for option in (*reversed(options), nats_option, common):
            serve = option(serve)
        return click.command(enter.__name__, help=enter.__doc__)(serve)

    return command


@role()
async def agents(
    hot: HotSettings[Settings], stack: AsyncExitStack, bus: Bus, system: ActorSystem
) -> tuple[str, list[Watch]]:
    """Run a coordinator and the agents of all roles."""
    from actors.cli.progress import agents_embedder
    from actors.launch.roles import run_agents_role
    from actors.patterns.plugins import load_catalogue

    settings = hot.settings
    catalogue = load_catalogue(settings.patterns)
    await stack.enter_async_context(run_agents_role(bus, hot, system, catalogue, agents_embedder(settings)))
    return f"agents of cluster {settings.agents.cluster} are ready", []


@role()
async def dispatcher(
    hot: HotSettings[Settings], stack: AsyncExitStack, bus: Bus, system: ActorSystem
) -> tuple[str, list[Watch]]:
    """Send each generation to a node."""
    from actors.launch.roles import run_dispatcher_role

    await stack.enter_async_context(run_dispatcher_role(bus, hot, system))
    return "dispatcher is ready", []


@role(
    click.option(
        "--http",
        "gateway__http",
        metavar="HOST:PORT",
        help="Address of the HTTP API. [default: 127.0.0.1:8080]",
    )
)
async def gateway(
    hot: HotSettings[Settings], stack: AsyncExitStack, bus: Bus, system: ActorSystem
) -> tuple[str, list[Watch]]:
    """Serve the OpenAI API and the NATS service `orchestra`."""
    from actors.launch.roles import run_gateway_role
    from actors.patterns.plugins import load_catalogue

    catalogue = load_catalogue(hot.settings.patterns)
    running = await stack.enter_async_context(run_gateway_role(bus, hot, system, catalogue))
    return f"gateway is at {running.url}", []


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InvalidRequest(f"--label {text!r} is not K=V")
    return key, value


def _maker(
    kind: str, settings: Settings, serve: list[ServedName], options: dict[str, Any], slots: int | None
) -> Callable[[AsyncExitStack], Awaitable[tuple[Backend, list[Watch]]]]:
    """Return a function that starts the backend, with the conditions that end it. Raises `InvalidRequest`."""
    if kind != "triton":
        ready = _backend(kind, settings, serve, options, slots)

        async def without_server(_: AsyncExitStack) -> tuple[Backend, list[Watch]]:
            return ready, []

        return without_server
    from actors.cli.triton_node import TritonNode

    options_set = {"url": options.pop("triton_url", None), "slots": slots}
    node = TritonNode(
        settings, serve, {name: value for name, value in options_set.items() if value is not None}
    )
    _refuse(kind, options)

    async def with_server(stack: AsyncExitStack) -> tuple[Backend, list[Watch]]:
        backend, server = await stack.enter_async_context(node.running())
        return backend, [server.watch] if server is not None else []

    return with_server


def _refuse(kind: str, options: Iterable[str]) -> None:
    for name in options:
        raise InvalidRequest(f"--{name.replace('_', '-')} does not go with --backend {kind}")


def _backend(
    kind: str, settings: Settings, serve: list[ServedName], options: dict[str, Any], slots: int | None
) -> Backend:
    _refuse(kind, options.keys() - _OPTIONS.get(kind, set()))
    if slots is not None:
        options = options | {"slots": slots}
    if kind == "openai":
        return openai_backend(serve, settings.openai | options)
    if kind == "echo":
        return echo_backend(serve, settings.echo | options)
    if kind == "replay":
        return replay_backend(serve, settings.replay | options)
    from actors.cli.progress import pull_model

    names = [each.upstream for each in serve] or list(settings.models)
    folders = [pull_model(name, settings.models_folder) for name in names]
    if kind == "openvino":
        return openvino_backend(folders, settings.openvino | options)
    return onnx_backend(folders, settings.onnx | options)


def _serve(hot: HotSettings[Settings], role_name: str, enter: Enter) -> None:
    ignore_hangup()
    raise SystemExit(run(_run(hot, role_name, enter)))


async def _run(hot: HotSettings[Settings], role_name: str, enter: Enter) -> int:
    stop = stop_on_signals()
    settings = hot.settings
    url = nats_url_of(settings)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connected(settings, url, "orchestra"))
        await apply_when_ready(bus, shipped_declaration())
        identity = ProcessIdentity.of_this_process(role_name)
        await stack.enter_async_context(followed(bus, hot, identity))
        process = await stack.enter_async_context(observed(bus, hot, identity))
        system = ActorSystem()
        ready, watches = await enter(hot, stack, bus, system)
        metrics = f" · metrics at {process.metrics_url}" if process.metrics_url else ""
        click.echo(f"Orchestra {ready} · {url}{metrics}")
        await until(
            stop,
            raise_when_set(system.actor_failed, "an actor crashed too often; see the log above"),
            *watches,
        )
    return 0
