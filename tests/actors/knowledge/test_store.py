"""The store of documents: put whole or not at all, whoever reads, writes or breaks it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors.knowledge.document import Passage
from actors.knowledge.errors import StoreBroken, StoreFull
from actors.knowledge.schema import DIMENSIONS
from actors.knowledge.search import RRF_K, Search, fuse
from actors.knowledge.store import Store, Vector, documents, store_file

RNG = np.random.default_rng(0)


def unit() -> Vector:
    vector = RNG.normal(size=DIMENSIONS).astype(np.float32)
    return vector / np.linalg.norm(vector)


def opened(data: Path, *, model: str = "minilm", max_mb: float = 50) -> Store:
    return Store(store_file(data), model=model, max_mb=max_mb)


def put(store: Store, source: str, *texts: str, digest: bytes = b"1") -> dict[bytes, Vector]:
    passages = [Passage("", text) for text in texts]
    vectors = {passage.digest: unit() for passage in passages}
    store.put(source, source, (digest, 10), passages, vectors)
    return vectors


def test_a_document_put_again_takes_the_place_of_the_older_one(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, "/a", "apples are red", "pears are green")
        put(store, "/b", "figs")
        put(store, "/a", "apples are yellow", digest=b"2")
    stored = documents(store_file(tmp_path))
    assert [(each.source, each.passages, each.digest) for each in stored] == [
        ("/a", 1, b"2"),
        ("/b", 1, b"1"),
    ]
    search = Search(store_file(tmp_path))
    assert {found.text for found in search.find("red green apples", unit(), 10)} == {
        "apples are yellow",
        "figs",
    }
    search.close()


def test_a_removed_document_is_found_no_more_by_words_or_by_meaning(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        vectors = put(store, "/a", "apples")
        put(store, "/b", "figs")
        assert store.remove("/a")
        assert not store.remove("/a")
    search = Search(store_file(tmp_path))
    (vector,) = vectors.values()
    assert [found.text for found in search.find("apples", vector, 10)] == ["figs"]
    search.close()


def test_vectors_kept_for_an_unfinished_document_are_found_and_go_when_it_is_finished(tmp_path: Path) -> None:
    passage = Passage("heading", "text")
    vector = unit()
    with opened(tmp_path) as store:
        store.stage({passage.digest: vector})
    with opened(tmp_path) as store:  # another process, after a kill
        known = store.known([passage.digest, b"unknown"])
        assert np.array_equal(known[passage.digest], vector)
        assert len(known) == 1
        store.put("/a", "a", (b"1", 1), [passage], known)
        assert store._db.execute("SELECT count(*) FROM staged").fetchall() == [(0,)]
        assert np.array_equal(store.known([passage.digest])[passage.digest], vector)


def test_readers_see_the_last_whole_state_while_another_process_writes(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, "/a", "apples")
        search = Search(store_file(tmp_path))
        with store._db:
            put(store, "/b", "figs")
            assert {found.text for found in search.find("figs apples", unit(), 10)} == {"apples"}
        assert {found.text for found in search.find("figs apples", unit(), 10)} == {"apples", "figs"}
        search.close()


def test_a_full_store_says_so_by_its_setting_and_keeps_what_it_had(tmp_path: Path) -> None:
    with opened(tmp_path, max_mb=3) as store:
        put(store, "/a", "apples")
        with pytest.raises(StoreFull, match=r"knowledge\.max_store_mb"):
            put(store, "/big", *(f"passage {number} " * 100 for number in range(2_000)))
        assert store.find("/big") is None
        put(store, "/c", "figs")
    assert [each.source for each in documents(store_file(tmp_path))] == ["/a", "/c"]


def test_a_store_of_another_embedding_model_is_not_written_to(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, "/a", "apples")
    with pytest.raises(StoreBroken, match="made with the embedding model 'minilm', not 'other'"):
        opened(tmp_path, model="other")


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 1_000, b"SQLite format 3\0" + b"\xff" * 8_000]
)
def test_a_file_that_is_no_store_is_named(tmp_path: Path, content: bytes) -> None:
    file = store_file(tmp_path)
    file.parent.mkdir()
    file.write_bytes(content)
    for broken in (lambda: opened(tmp_path), lambda: documents(file), lambda: Search(file)):
        with pytest.raises(StoreBroken, match=r"knowledge\.db"):
            broken()


def test_no_store_holds_no_documents(tmp_path: Path) -> None:
    assert documents(store_file(tmp_path)) == []
    assert not store_file(tmp_path).parent.exists()


def test_what_both_rankings_have_near_their_top_comes_first() -> None:
    scores = fuse([1, 2, 3], [4, 2, 5])
    assert max(scores, key=lambda id: scores[id]) == 2
    assert scores[2] == pytest.approx(2 / (RRF_K + 2))
    assert scores[1] == scores[4] == pytest.approx(1 / (RRF_K + 1))


@pytest.mark.parametrize(
    "text", ["", "?!", '"', "a AND NOT (", "NEAR(x)", "x*", "col:y", "'; DROP TABLE words"]
)
def test_any_text_can_be_looked_for(tmp_path: Path, text: str) -> None:
    with opened(tmp_path) as store:
        put(store, "/a", "apples and y and x")
    search = Search(store_file(tmp_path))
    assert [found.text for found in search.find(text, unit(), 3)] == ["apples and y and x"]
    search.close()
