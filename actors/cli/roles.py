"""One role each: `orchestra node|agents|dispatcher|gateway`, beside a NATS server that runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from actors.backends.base import Backend
from actors.bus.bus import Bus
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply_when_ready
from actors.cli.drain import drain
from actors.cli.main import common, given_settings, nats_option
from actors.cli.reach import nats_url_of
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
    replay_backend,
)
from actors.runtime.system import ActorSystem
from actors.settings import Settings, load
from actors.telemetry.telemetry import start_tracing
from orchestration.errors import InvalidRequest

Watch = Callable[[], Awaitable[object]]
_OPTIONS = {
    "openai": {"base_url", "api_key_env"},
    "echo": {"speed", "load_s", "model_mb"},
    "replay": {"speed", "records"},
}
"""Of `orchestra node`, by the backend that has them."""
Enter = Callable[[Settings, AsyncExitStack, Bus, ActorSystem], Awaitable[tuple[str, list[Watch]]]]
"""Starts a role. Returns what to say once it runs, and what ends it."""


@click.group(invoke_without_command=True)
@common
@nats_option
@click.option("--backend", type=click.Choice(BACKENDS), help="What runs the models.  [required]")
@click.option("--id", "node_id", help="Name in the cluster. [default: backend, host and four digits]")
@click.option("--serve", multiple=True, metavar="NAME[=UPSTREAM]", help="Model to serve; repeat for more.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Label for placement; repeat for more.")
@click.option("--slots", type=click.IntRange(min=1), help="Generations at once. [default: the backend's]")
@click.option("--base-url", metavar="URL", help="openai: the server's base URL.")
@click.option("--api-key-env", metavar="VAR", help="openai: environment variable that holds the key.")
@click.option("--triton-url", metavar="URL", help="triton: grpc://HOST:PORT of a server. [default: its own]")
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    metavar="TOKENS_PER_S",
    help="echo, replay: of each answer; 0 is full speed. [default: echo 0, replay 300]",
)
@click.option(
    "--records", type=click.Path(path_type=Path), metavar="FILE", help="replay: recorded answers, JSON lines."
)
@click.option("--load-s", type=click.FloatRange(min=0), metavar="SECONDS", help="echo: to load a model.")
@click.option("--model-mb", type=click.FloatRange(min=0), metavar="MB", help="echo: memory of each model.")
@click.option(
    "--memory-mb",
    type=click.FloatRange(min=0),
    metavar="MB",
    help="Memory for models; what does not fit is loaded when it is asked for. [default: the backend's]",
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
    """Serve models to a cluster from this machine, or say `drain ID` to have a node leave."""
    if context.invoked_subcommand is not None:
        return
    if backend is None:
        raise click.UsageError("Missing option '--backend'.")
    slots, memory_mb = options.pop("slots"), options.pop("memory_mb")
    settings, _ = load(
        given_settings(
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
    given = {name: value for name, value in options.items() if value is not None}
    make = _maker(backend, settings, [ServedName.parse(text) for text in serve], given, slots)

    async def enter(
        settings: Settings, stack: AsyncExitStack, bus: Bus, system: ActorSystem
    ) -> tuple[str, list[Watch]]:
        from actors.node.process import run_node

        made, watches = await make(stack)
        running = await stack.enter_async_context(run_node(bus, made, settings.node, system))
        names = ", ".join(card.name for card in made.models)
        taken = raise_when_set(running.identity_lost, f"another node has taken the id {running.id}")
        return f"node {running.id} serves {names}", [taken, running.drained.wait, *watches]

    _serve(settings, enter)


node.add_command(drain)


def role(*options: Callable[[Any], Any]) -> Callable[[Enter], click.Command]:
    """A command of how a role is entered: its name and docstring are the command's. An option is named as
    the setting it says, with `__` for the dot."""

    def command(enter: Enter) -> click.Command:
        def serve(config_file: Path | None, data: Path | None, nats_url: str | None, **more: Any) -> None:
            settings, _ = load(given_settings(data=data, nats__url=nats_url, **more), config_file)
            configure_logging(settings.telemetry)
            _serve(settings, enter)

        for option in (*reversed(options), nats_option, common):
            serve = option(serve)
        return click.command(enter.__name__, help=enter.__doc__)(serve)

    return command


@role()
async def agents(
    settings: Settings, stack: AsyncExitStack, bus: Bus, system: ActorSystem
) -> tuple[str, list[Watch]]:
    """Run the coordinator and the specialists."""
    from actors.agents.process import run_agents
    from actors.agents.services import AgentOptions
    from actors.cli.progress import agents_embedder
    from actors.jobs.process import run_webhooks
    from actors.launch.build_tools import build_tools
    from actors.patterns.plugins import load_catalogue

    await stack.enter_async_context(run_webhooks(bus, settings.jobs, system))
    await stack.enter_async_context(
        run_agents(
            bus,
            settings.agents,
            system,
            AgentOptions(
                jobs=settings.jobs,
                fallbacks=settings.dispatcher.fallbacks,
                embedder=agents_embedder(settings),
                build_tools=partial(build_tools, settings),
                catalogue=load_catalogue(settings.patterns),
            ),
        )
    )
    return f"agents of cluster {settings.agents.cluster} are here", []


@role()
async def dispatcher(
    settings: Settings, stack: AsyncExitStack, bus: Bus, system: ActorSystem
) -> tuple[str, list[Watch]]:
    """Place waiting generations on nodes."""
    from actors.dispatcher.process import run_dispatcher

    await stack.enter_async_context(run_dispatcher(bus, settings.dispatcher, system))
    return "dispatcher is here", []


@role(
    click.option(
        "--http", "gateway__http", metavar="HOST:PORT", help="Where to listen. [default: 127.0.0.1:8080]"
    )
)
async def gateway(
    settings: Settings, stack: AsyncExitStack, bus: Bus, system: ActorSystem
) -> tuple[str, list[Watch]]:
    """Serve the OpenAI API and the NATS service `orchestra`."""
    from actors.gateway.process import run_gateway
    from actors.patterns.plugins import load_catalogue

    running = await stack.enter_async_context(
        run_gateway(
            bus,
            settings.gateway,
            system,
            None,
            settings.jobs,
            settings.dispatcher.fallbacks,
            load_catalogue(settings.patterns),
        )
    )
    return f"gateway is at {running.url}", []


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InvalidRequest(f"--label {text!r} is not K=V")
    return key, value


def _maker(
    kind: str, settings: Settings, serve: list[ServedName], options: dict[str, Any], slots: int | None
) -> Callable[[AsyncExitStack], Awaitable[tuple[Backend, list[Watch]]]]:
    """Makes the backend when the process serves, with what ends it; what is wrong is raised here already."""
    if kind != "triton":
        ready = _backend(kind, settings, serve, options, slots)

        async def made(_: AsyncExitStack) -> tuple[Backend, list[Watch]]:
            return ready, []

        return made
    from actors.cli.triton_node import TritonNode

    given = {"url": options.pop("triton_url", None), "slots": slots}
    node = TritonNode(settings, serve, {name: value for name, value in given.items() if value is not None})
    _refuse(kind, options)

    async def started(stack: AsyncExitStack) -> tuple[Backend, list[Watch]]:
        backend, server = await stack.enter_async_context(node.running())
        return backend, [server.watch] if server is not None else []

    return started


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
    return onnx_backend(folders, settings.onnx | options)


def _serve(settings: Settings, enter: Enter) -> None:
    ignore_hangup()
    provider = start_tracing(settings.telemetry)
    try:
        raise SystemExit(run(_run(settings, enter)))
    finally:
        if provider is not None:
            provider.shutdown()


async def _run(settings: Settings, enter: Enter) -> int:
    stop = stop_on_signals()
    url = nats_url_of(settings)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connected(settings, url, "orchestra"))
        await apply_when_ready(bus, shipped_declaration())
        system = ActorSystem()
        ready, watches = await enter(settings, stack, bus, system)
        click.echo(f"Orchestra {ready} · {url}")
        await until(
            stop,
            raise_when_set(system.actor_failed, "an actor crashed again and again; see the log above"),
            *watches,
        )
    return 0
