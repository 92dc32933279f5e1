"""`orchestra knowledge`, as a person meets it, and as it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.cli.knowledge import knowledge
from actors.embedding.embedder import Embedder
from actors.knowledge.errors import StoreBroken
from actors.knowledge.ingest import BATCH, IngestResult
from actors.knowledge.schema import connect
from actors.knowledge.store import documents, store_file
from actors.models.tokenizer import Tokenizer
from tests.actors.knowledge.adding import ingest
from tests.actors.knowledge.documents import data_folder, encrypted, library, pdf
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder
from tests.fixtures.process import orchestra
from tests.fixtures.small_disk import small_disk

SMALL_MB = 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return data_folder(tmp_path / "data")


def run(data: Path, *words: str | Path) -> Result:
    return CliRunner().invoke(knowledge, [str(word) for word in (*words, "--data", data)])


def as_json(data: Path, *words: str) -> Any:
    result = run(data, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def asked(file: Path, statement: str) -> Any:
    connection = connect(file, write=False)
    try:
        return connection.execute(statement).fetchall()[0][0]
    finally:
        connection.close()


def staged(file: Path) -> int:
    """Vectors of unfinished documents; -1 while there is no store."""
    try:
        return int(asked(file, "SELECT count(*) FROM staged"))
    except StoreBroken:
        return -1


def fill(file: Path) -> None:
    """Take all the room that its disk has left."""
    with file.open("wb", buffering=0) as filling:
        while True:
            filling.write(b"x" * 4_096)


def test_a_folder_is_added_listed_searched_and_removed(data: Path, tmp_path: Path) -> None:
    folder = library(tmp_path / "docs")
    (folder / ".hidden.md").write_text("# Secret")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    added = run(data, "add", folder)
    assert added.exit_code == 0
    assert added.stdout == "3 added · 5 passages\n"
    assert run(data, "add", folder).stdout == "3 unchanged · 5 passages\n"
    assert {row["title"] for row in as_json(data, "list")} == {"Refunds", "network.txt", "The roof garden"}
    assert "The roof garden" in run(data, "list").stdout
    best = as_json(data, "search", "printer with code E4711", "-n", "1")
    assert best[0]["document"] == str(folder / "network.txt")
    assert run(data, "search", "bees").stdout.startswith("[1] The roof garden › Bees")
    shutil.rmtree(folder)
    assert run(data, "remove", folder).stdout == "3 removed\n"
    assert as_json(data, "list") == []


def test_a_text_that_is_not_utf_8_is_named_with_its_encoding_and_another_can_be_given(
    data: Path, tmp_path: Path
) -> None:
    files = {
        "es.txt": "El año pasado el niño comió jamón.\n".encode("cp1252"),
        "en.txt": "He said “hello” – it’s 5€.\n".encode("cp1252"),
        "cafe.txt": "Café".encode("cp1252"),
        "utf.txt": "Größe".encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    added = run(data, "add", *(tmp_path / name for name in files))
    assert added.stdout == "4 added · 4 passages · read as: 3 windows-1252, 1 utf-8\n"
    assert f"{tmp_path / 'es.txt'}: read as windows-1252" in added.stderr
    assert "utf.txt" not in added.stderr
    found = {Path(each["document"]).name: each["passage"] for each in as_json(data, "search", "hello")}
    assert found["en.txt"].strip() == "He said “hello” – it’s 5€."
    assert found["es.txt"].strip() == "El año pasado el niño comió jamón."
    again = run(data, "add", tmp_path / "cafe.txt", "--encoding", "cp1251")
    assert again.stdout == "1 changed · 1 passages · read as: 1 cp1251\n"
    assert "Cafй" in {each["passage"].strip() for each in as_json(data, "search", "Caf")}
    assert run(data, "add", tmp_path / "cafe.txt").stdout == "1 unchanged · 1 passages\n"
    wrong = run(data, "add", tmp_path / "cafe.txt", "--encoding", "utf-8")
    assert (wrong.exit_code, "encoding is utf-8, but the text is not" in wrong.stderr) == (5, True)
    unknown = run(data, "add", tmp_path / "cafe.txt", "--encoding", "utf-9")
    assert (unknown.exit_code, "unknown encoding 'utf-9'" in unknown.stderr) == (2, True)


def test_what_cannot_be_read_is_told_and_the_others_are_added(data: Path, tmp_path: Path) -> None:
    folder = library(tmp_path / "docs")
    (folder / "empty.txt").touch()
    (folder / "junk.txt").write_bytes(os.urandom(4_096) + b"\0")
    (folder / "locked.pdf").write_bytes(encrypted(pdf("secret"), "swordfish"))
    (folder / "damaged.pdf").write_bytes(pdf("secret")[:200])
    with (folder / "huge.pdf").open("wb") as file:
        file.write(b"%PDF-1.7\n")
        file.truncate(200_000_000)
    os.mkfifo(tmp_path / "pipe")
    result = run(data, "add", folder, tmp_path / "pipe", tmp_path / "missing", "https://example.com/x")
    assert result.exit_code == 5
    assert result.stdout == "8 failed, 3 added · 5 passages\n"
    said = result.stderr.splitlines()
    for name, why in (
        ("empty.txt", "it is empty"),
        ("junk.txt", "it is not text"),
        ("locked.pdf", "it is encrypted with a password"),
        ("damaged.pdf", "it is a damaged PDF"),
        ("huge.pdf", "it has 200 MB, more than knowledge.max_document_mb 32"),
        ("pipe", "it is not a regular file"),
        ("missing", "there is no such file"),
        ("https://example.com/x", "web pages are not allowed: set knowledge.allow_urls"),
    ):
        assert any(f"{name}: {why}" in line for line in said), said
    assert len(as_json(data, "list")) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "/nowhere/empty-folder-*"), "there is no such file"),
        (("remove", "/nowhere/x"), "no document '/nowhere/x' is stored"),
        (("search", "anything"), "the knowledge base is empty"),
    ],
)
def test_wrong_use_is_told(data: Path, words: tuple[str, ...], said: str) -> None:
    result = run(data, *words)
    assert result.exit_code in (2, 5)
    assert said in " ".join(result.stderr.split())


def test_a_kill_in_the_middle_leaves_the_store_whole_and_costs_a_few_passages(
    data: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    folder = library(tmp_path / "docs")
    chapters = 4 * BATCH
    book = "".join(f"# Chapter {n}\n\n" + f"In part {n} the ship sails. " * 6 + "\n" for n in range(chapters))
    (folder / "a-book.md").write_text(book)
    file = store_file(data)
    words = ("knowledge", "add", str(folder), "--data", str(data))
    with orchestra(*words, ORCHESTRA_AGENTS__EMBEDDER="all-minilm-l6-v2") as process:
        asyncio.run(eventually(lambda: staged(file) >= BATCH, within_s=60))
        process.send(signal.SIGKILL)
        process.wait()
    kept = staged(file)
    assert asked(file, "PRAGMA integrity_check") == "ok"
    assert documents(file) == []
    added = asyncio.run(add_one(data, str(folder / "a-book.md"), tokenizer))
    assert (added.passages, added.embedded) == (chapters, chapters - kept)
    assert run(data, "add", folder).stdout == f"1 unchanged, 3 added · {chapters + 5} passages\n"
    assert asked(file, "SELECT count(*) FROM vectors") == chapters + 5
    assert asked(file, "SELECT count(*) FROM words WHERE words MATCH 'ship'") == chapters
    assert staged(file) == 0


async def add_one(data: Path, source: str, tokenizer: Tokenizer) -> IngestResult:
    embedder = Embedder(minilm_folder())
    async with ingest(data, embedder, tokenizer) as adding:
        added = await adding.add(source)
    embedder.close()
    return added


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of `SMALL_MB` MB in all."""
    with small_disk(tmp_path / "disk", SMALL_MB) as disk:
        yield disk


def test_a_full_disk_is_told_and_what_was_stored_is_whole(disk: Path, tmp_path: Path) -> None:
    data = data_folder(disk / "data")
    folder = library(tmp_path / "docs")
    assert run(data, "add", folder / "network.txt").exit_code == 0
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    (folder / "long.txt").write_text("\n\n".join(f"Paragraph {n} is here. " * 40 for n in range(20)))
    full = run(data, "add", folder / "long.txt")
    assert isinstance(full.exception, SystemExit), full.exception
    assert full.exit_code == 5
    assert "the disk is full" in full.stderr
    filler.unlink()
    assert asked(store_file(data), "PRAGMA integrity_check") == "ok"
    assert len(as_json(data, "list")) == 1
    assert run(data, "add", folder).exit_code == 0
