"""`orchestra knowledge`: the documents of the research agent."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from actors.cli.main import FAILED, ErrorReportingGroup, common, overrides_of
from actors.cli.show import widen
from actors.knowledge.errors import KnowledgeError, StoreBroken, StoreFull
from actors.knowledge.sources import list_sources
from actors.knowledge.store import Store, documents, store_file
from actors.settings import Settings, load
from orchestration.errors import InvalidRequest

if TYPE_CHECKING:
    from actors.embedding.embedder import Embedder
    from actors.knowledge.document import SearchHit
    from actors.knowledge.ingest import Ingest


@click.group(cls=ErrorReportingGroup)
def knowledge() -> None:
    """Add, list, remove and search the documents of the research agent."""


@knowledge.command()
@click.argument("places", metavar="PATH|URL…", nargs=-1, required=True)
@click.option(
    "--encoding", default="", metavar="NAME", help="Encoding of texts. [default: detected for each]"
)
@common
def add(places: tuple[str, ...], encoding: str, data: Path | None, config_file: Path | None) -> None:
    """Add files, folders and web pages: text, Markdown, HTML and PDF.

    Unchanged documents are skipped, so run it again after an interruption, or to update a folder. Web pages
    need the setting knowledge.allow_urls. For a text that is not UTF-8 the detected encoding is printed; if
    it is wrong, add the text again with --encoding.
    """
    from actors.knowledge.encodings import check_encoding

    if encoding:
        check_encoding(encoding)
    settings, _ = load(overrides_of(data=data), config_file)
    sources = list(dict.fromkeys(list_sources(places)))
    if not sources:
        raise InvalidRequest(f"there is no document in {', '.join(places)}")
    with ExitStack() as stack:
        failed = asyncio.run(_add(_ingest(settings, stack), sources, stack, encoding))
    raise SystemExit(FAILED if failed else 0)


def _ingest(settings: Settings, stack: ExitStack) -> Ingest:
    from actors.knowledge.ingest import Ingest
    from actors.knowledge.reader import DocumentReader
    from actors.models.tokenizer import Tokenizer

    store = stack.enter_context(_store(settings))
    embedder = _embedder(settings, stack)
    tokenizer = Tokenizer.load(embedder.folder)
    reader = stack.enter_context(DocumentReader(settings.knowledge))
    return Ingest(
        store, reader, embedder, lambda text: len(tokenizer.encode_sentence(text)) - 2, settings.knowledge
    )


def _store(settings: Settings) -> Store:
    return Store(store_file(settings.folder), model=_model(settings), max_mb=settings.knowledge.max_store_mb)


def _model(settings: Settings) -> str:
    if not settings.agents.embedder:
        raise InvalidRequest("agents.embedder is empty, and the knowledge base needs an embedding model")
    return settings.agents.embedder


def _embedder(settings: Settings, stack: ExitStack) -> Embedder:
    from actors.cli.progress import pull_model
    from actors.embedding.embedder import Embedder

    embedder = Embedder(pull_model(_model(settings), settings.models_folder))
    stack.callback(embedder.close)
    return embedder


async def _add(ingest: Ingest, sources: list[str], stack: ExitStack, encoding: str) -> int:
    """Add all sources. Returns the number that failed."""
    console = Console(stderr=True)
    bars = stack.enter_context(
        Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
        )
    )
    whole = bars.add_task("documents", total=len(sources))
    tally: Counter[str] = Counter()
    encodings: Counter[str] = Counter()
    passages = 0
    for source in sources:
        task = bars.add_task(Path(source).name or source, total=None)
        try:
            added = await ingest.add(source, partial(_moved, bars, task), encoding=encoding)
        except (StoreFull, StoreBroken):  # all others would fail too
            raise
        except KnowledgeError as error:
            tally["failed"] += 1
            bars.console.print(f"{source}: {error.message}", markup=False, highlight=False, soft_wrap=True)
        else:
            tally[added.status] += 1
            passages += added.passages
            encodings[added.encoding] += 1
            if added.encoding not in ("", "utf-8"):
                line = f"{source}: read as {added.encoding}"
                bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        bars.remove_task(task)
        bars.advance(whole)
    counts = ", ".join(f"{count} {status}" for status, count in tally.items())
    del encodings[""]
    kinds = ", ".join(f"{count} {name}" for name, count in encodings.items())
    others = f" · read as: {kinds}" if encodings.keys() - {"utf-8"} else ""
    click.echo(f"{counts} · {passages} passages{others}")
    return tally["failed"]


def _moved(bars: Progress, task: TaskID, done: int, total: int) -> None:
    bars.update(task, completed=done, total=total)


@knowledge.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@common
def list_(as_json: bool, data: Path | None, config_file: Path | None) -> None:
    """List the stored documents."""
    settings, _ = load(overrides_of(data=data), config_file)
    stored = documents(store_file(settings.folder))
    if as_json:
        click.echo(
            json.dumps(
                [
                    {
                        "source": document.source,
                        "title": document.title,
                        "bytes": document.bytes,
                        "passages": document.passages,
                        "added_at": document.added_at,
                    }
                    for document in stored
                ]
            )
        )
        return
    table = Table("source", "title", "passages", "added", box=None, pad_edge=False)
    for document in stored:
        added = datetime.fromtimestamp(document.added_at, UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(document.source, document.title, str(document.passages), added)
    widen(Console()).print(table)


@knowledge.command()
@click.argument("places", metavar="PATH|URL…", nargs=-1, required=True)
@common
def remove(places: tuple[str, ...], data: Path | None, config_file: Path | None) -> None:
    """Remove documents. A folder stands for all documents that were added from it."""
    settings, _ = load(overrides_of(data=data), config_file)
    stored = [document.source for document in documents(store_file(settings.folder))]
    sources: list[str] = []
    for place in places:
        path = str(Path(place).expanduser().absolute())
        matching = [each for each in stored if each in (place, path) or each.startswith(path + "/")]
        if not matching:
            raise InvalidRequest(f"no document {place!r} is stored; see `orchestra knowledge list`")
        sources += matching
    with _store(settings) as store:
        removed = sum(store.remove(source) for source in dict.fromkeys(sources))
    click.echo(f"{removed} removed")


@knowledge.command()
@click.argument("text")
@click.option(
    "-n", "max_hits", type=click.IntRange(1, 50), default=5, show_default=True, help="Maximum passages."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@common
def search(text: str, max_hits: int, as_json: bool, data: Path | None, config_file: Path | None) -> None:
    """Show the passages that match TEXT, by meaning and by words."""
    settings, _ = load(overrides_of(data=data), config_file)
    if not documents(store_file(settings.folder)):
        raise InvalidRequest("the knowledge base is empty; see `orchestra knowledge add`")
    with ExitStack() as stack:
        hits = asyncio.run(_search(settings, stack, text, max_hits))
    if as_json:
        click.echo(json.dumps([each.as_json() for each in hits]))
        return
    for number, each in enumerate(hits, 1):
        where = " › ".join(part for part in (each.title, each.heading) if part)
        click.echo(f"[{number}] {where} ({each.source}, similarity {each.similarity:.2f})\n{each.text}\n")


async def _search(settings: Settings, stack: ExitStack, text: str, max_hits: int) -> list[SearchHit]:
    from actors.knowledge.search import Search

    (vector,) = await _embedder(settings, stack).vectors([text])
    opened = Search(store_file(settings.folder))
    stack.callback(opened.close)
    return opened.find(text, vector, max_hits)
