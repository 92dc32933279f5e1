"""The knowledge base as the research agent uses it, with the real embedding model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.embedding.embedder import Embedder
from actors.knowledge.errors import UnreadableDocument
from actors.knowledge.settings import KnowledgeSettings
from actors.knowledge.store import documents, store_file
from actors.knowledge.tool import KnowledgeTool
from actors.models.tokenizer import Tokenizer
from tests.actors.knowledge.adding import ingest
from tests.actors.knowledge.documents import TEXTS, library

SETTINGS = KnowledgeSettings()


async def found(hand: KnowledgeTool, query: str, most: int = 1) -> Sequence[dict[str, object]]:
    result = await hand.use("knowledge", {"query": query, "max_passages": most})
    assert not result.error
    return list(result.data)


async def test_a_question_finds_its_passage_by_meaning_and_a_code_by_its_word(
    tmp_path: Path, embedder: Embedder, tokenizer: Tokenizer
) -> None:
    folder = library(tmp_path / "docs")
    async with ingest(tmp_path, embedder, tokenizer) as adding:
        for name in TEXTS:
            await adding.add(str(folder / name))
    hand = KnowledgeTool(tmp_path, embedder, SETTINGS)
    for query, name, word in (
        ("How many days do I have to return a bike?", "refunds.md", "30 days"),
        ("When do vegetables get watered?", "garden.html", "before nine"),
        ("What does E4711 mean?", "network.txt", "certificate"),
    ):
        (passage,) = await found(hand, query)
        assert passage["document"] == str(folder / name)
        assert word in str(passage["passage"])
    assert (await found(hand, "Who won the football cup of 1974?", 5)) == []
    await hand.close()


async def test_the_tool_is_there_while_there_are_documents_and_follows_their_changes(
    tmp_path: Path, embedder: Embedder, tokenizer: Tokenizer
) -> None:
    file = tmp_path / "hours.txt"
    hand = KnowledgeTool(tmp_path, embedder, SETTINGS)
    assert await hand.tools() == ()
    file.write_text("The library opens at nine.")
    async with ingest(tmp_path, embedder, tokenizer) as adding:
        assert await hand.tools() == ()
        assert (await adding.add(str(file))).status == "added"
        assert [tool.name for tool in await hand.tools()] == ["knowledge"]
        file.write_text("The library opens at ten.")
        assert (await adding.add(str(file))).status == "changed"
        (passage,) = await found(hand, "When does the library open?", 5)
        assert passage["passage"] == "The library opens at ten."
        adding.store.remove(str(file))
    assert await hand.tools() == ()
    await hand.close()


async def test_a_store_that_was_made_anew_is_read_anew_and_a_broken_one_offers_nothing(
    tmp_path: Path, embedder: Embedder, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "hours.txt"
    file.write_text("The library opens at nine.")
    hand = KnowledgeTool(tmp_path, embedder, SETTINGS)
    for _ in range(2):
        async with ingest(tmp_path, embedder, tokenizer) as adding:
            assert (await adding.add(str(file))).status == "added"
        assert await found(hand, "library")
        for each in store_file(tmp_path).parent.iterdir():
            each.unlink()
    store_file(tmp_path).write_bytes(b"junk" * 1_000)
    assert await hand.tools() == ()
    assert await hand.tools() == ()
    assert (
        len([record for record in caplog.records if "continues without its documents" in record.message]) == 1
    )
    await hand.close()


@pytest.mark.parametrize(
    "arguments", [{}, {"query": ""}, {"query": "x", "max_passages": 0}, {"query": "x", "all": 1}]
)
async def test_wrong_arguments_are_told_by_their_name(
    tmp_path: Path, embedder: Embedder, arguments: dict[str, object]
) -> None:
    hand = KnowledgeTool(tmp_path, embedder, SETTINGS)
    result = await hand.use("knowledge", arguments)
    assert result.error.startswith(("query: ", "max_passages: ", "all: "))
    await hand.close()


async def test_what_has_not_changed_is_not_embedded_again_and_of_a_change_only_what_is_new(
    tmp_path: Path, embedder: Embedder, tokenizer: Tokenizer
) -> None:
    file = tmp_path / "book.md"
    chapters = [f"# Chapter {number}\n\nHere is what happened in part {number}.\n" for number in range(8)]
    file.write_text("".join(chapters))
    async with ingest(tmp_path, embedder, tokenizer) as adding:
        first = await adding.add(str(file))
        assert (first.status, first.passages, first.embedded) == ("added", 8, 8)
        again = await adding.add(str(file))
        assert (again.status, again.passages, again.embedded) == ("unchanged", 8, 0)
        file.write_text("".join(chapters) + "# Epilogue\n\nAll is well.\n")
        more = await adding.add(str(file))
        assert (more.status, more.passages, more.embedded) == ("changed", 9, 1)
        copy = tmp_path / "copy.md"
        copy.write_text(file.read_text())
        twin = await adding.add(str(copy))
        assert (twin.status, twin.embedded) == ("added", 0)


async def test_two_who_add_the_same_documents_at_once_store_each_of_them_once(
    tmp_path: Path, embedder: Embedder, tokenizer: Tokenizer
) -> None:
    folder = library(tmp_path / "docs")
    files = [str(folder / name) for name in TEXTS]

    async def add_all() -> None:
        async with ingest(tmp_path, embedder, tokenizer) as adding:
            for file in files:
                await adding.add(file)

    await asyncio.gather(add_all(), add_all(), add_all())
    stored = documents(store_file(tmp_path))
    assert [each.source for each in stored] == sorted(files)
    assert sum(each.passages for each in stored) == 5


async def test_a_document_that_became_unreadable_stays_as_it_was(
    tmp_path: Path, embedder: Embedder, tokenizer: Tokenizer
) -> None:
    file = tmp_path / "hours.txt"
    file.write_text("The library opens at nine.")
    async with ingest(tmp_path, embedder, tokenizer) as adding:
        await adding.add(str(file))
        file.write_bytes(b"\0\1\2" * 100)
        with pytest.raises(UnreadableDocument):
            await adding.add(str(file))
        stored = adding.store.find(str(file))
    assert stored is not None
    assert stored.passages == 1
