"""`orchestra triton`: model repositories for NVIDIA's Triton."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from actors.cli.main import ErrorReportingGroup, common, overrides_of
from actors.settings import load
from actors.triton.config import check_repository
from actors.triton.repository import write_repository
from actors.triton.repository_plan import ModelPart, ModelSpec
from actors.triton.settings import Runtime


@click.group(cls=ErrorReportingGroup)
def triton() -> None:
    """Write and check model repositories for NVIDIA's Triton."""


@triton.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--model", "names", multiple=True, required=True, help="Installed model; repeatable.")
@click.option(
    "--partitions", type=int, default=1, show_default=True, help="Parts into which a chat model is split."
)
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="cpu|cuda:N[,…]",
    help="One device for all parts, or one for each part.",
)
@click.option(
    "--runtime",
    type=click.Choice(get_args(Runtime)),
    default="torch",
    show_default=True,
    help="Runtime of chat models that are not split.",
)
@click.option("--force", is_flag=True, help="Write into a folder that is not empty.")
@common
def repository(
    out: Path,
    names: tuple[str, ...],
    partitions: int,
    device: str,
    runtime: Runtime,
    force: bool,
    data: Path | None,
    config_file: Path | None,
) -> None:
    """Write a repository for installed models to OUT: configurations, code, and links to the weights."""
    settings, _ = load(overrides_of(data=data), config_file)

    def tell(part: ModelPart) -> None:
        click.echo(f"{part.name}: {part.about}", err=True)

    spec = ModelSpec(partitions=partitions, device=device, runtime=runtime)
    write_repository(out, settings.models_folder, names, spec, force=force, on_part=tell)
    click.echo(f"ready: {out.expanduser().absolute()}")


@triton.command()
@click.argument("folder", type=click.Path(path_type=Path))
def check(folder: Path) -> None:
    """Check every config.pbtxt of the repository FOLDER."""
    names = check_repository(folder)
    click.echo(f"{len(names)} models: {', '.join(names)}")
