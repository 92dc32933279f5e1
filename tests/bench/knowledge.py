"""Knowledge base: 10,000 passages of real text added, searched, and held against an exact search.

The text is the documentation in the docstrings of the standard library and of the packages installed here.
The rate at which documents are added is held against what the embedding model alone takes for a sample of
the passages. Searches are timed as the research agent makes them, apart from embedding the question. What
is found by meaning is held against the ten nearest of all vectors, compared one by one in numpy.

    python -m tests.bench knowledge
"""

from __future__ import annotations

import asyncio
import inspect
import re
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from actors.embedding.embedder import Embedder
from actors.knowledge.chunking import passages
from actors.knowledge.ingest import BATCH, Ingest
from actors.knowledge.schema import connect
from actors.knowledge.search import Search
from actors.knowledge.store import Vector, store_file
from actors.models.tokenizer import Tokenizer
from tests.actors.knowledge.adding import ingest
from tests.fixtures.models import minilm_folder

PASSAGES = 10_000
EMBEDDED = 1_000
"""Passages whose vectors the model makes, for the rate. The rest of the 10,000 are as real as text, and get
the vector of one of these with some noise: who searches, and by what it is compared, cannot tell."""
NOISE = 0.03
"""Standard deviation of each of the 384 numbers: cosines of about 0.86 to the vector it comes from."""
DOCUMENT_CHARACTERS = 20_000
DOCSTRING = re.compile(r'"""([^"]{60,300})"""')
SAMPLE = 256
"""Passages for which the model alone is timed."""
QUESTIONS = 200
RECALL_AT = 10
SEARCH_LIMIT_MS = 50.0
"""At the 99th percentile, of the search alone."""


def docstrings() -> Iterator[str]:
    """Those that are about a passage long, each below the name of its module."""
    folders = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))]
    seen: set[str] = set()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            for text in DOCSTRING.findall(file.read_text("utf-8", errors="ignore")):
                if text not in seen:
                    seen.add(text)
                    yield f"## {file.stem}\n\n{inspect.cleandoc(text)}\n\n"


def written(folder: Path) -> list[Path]:
    """Documents with enough text for more than `PASSAGES` passages."""
    files: list[Path] = []
    gathered: list[str] = []
    for number, text in enumerate(docstrings(), 1):
        gathered.append(text)
        if sum(map(len, gathered)) > DOCUMENT_CHARACTERS:
            files.append(folder / f"doc-{len(files):04}.md")
            files[-1].write_text("".join(gathered), "utf-8", errors="replace")
            gathered = []
        if number > PASSAGES + EMBEDDED:
            break
    return files


async def measure(data: Path) -> bool:
    tokenizer = Tokenizer.load(minilm_folder())
    embedder = Embedder(minilm_folder())
    files = written(data)
    await embedder.vectors(["warm"])
    stored = made = 0
    began = time.perf_counter()
    async with ingest(data, embedder, tokenizer) as adding:
        for file in files:
            if stored >= EMBEDDED:
                break
            added = await adding.add(str(file))
            stored, made = stored + added.passages, made + added.embedded
        seconds = time.perf_counter() - began
        fill(adding, files)
    texts, vectors = all_of(store_file(data))
    alone = await embedding_alone(texts)
    rate, ratio = made / seconds, made / seconds / alone
    print(f"added       {made:,} passages in {seconds:.0f} s: {rate:.0f}/s, {ratio:.0%} of the model alone")
    print(f"            {store_file(data).stat().st_size / len(texts):,.0f} bytes a passage")
    print(f"stored      {len(texts):,} passages")
    ok = await searches(data, embedder, texts, vectors)
    embedder.close()
    return ok


def fill(adding: Ingest, files: list[Path]) -> None:
    """Store the documents that are left, up to `PASSAGES` passages, with vectors near those there are."""
    random = np.random.default_rng(0)
    _, real = all_of(adding.store.file)
    stored = len(real)
    for file in files:
        if stored >= PASSAGES:
            return
        if adding.store.find(str(file)) is None:
            cut = passages(adding.reader.read(file.read_bytes(), "markdown"), adding.count)
            near = real[random.integers(len(real), size=len(cut))]
            near = near + random.normal(scale=NOISE, size=near.shape).astype(np.float32)
            near /= np.linalg.norm(near, axis=1, keepdims=True)
            vectors = {each.digest: row for each, row in zip(cut, near, strict=True)}
            adding.store.put(str(file), file.name, (b"", 0), cut, vectors)
            stored += len(cut)


def all_of(file: Path) -> tuple[list[str], Vector]:
    connection: Any = connect(file, write=False)
    rows = connection.execute(
        "SELECT heading, text, embedding FROM passages JOIN vectors USING (id) ORDER BY id"
    ).fetchall()
    connection.close()
    texts = [f"{heading}\n{text}" if heading else str(text) for heading, text, _ in rows]
    return texts, np.stack([np.frombuffer(vector, np.float32) for _, _, vector in rows])


async def embedding_alone(texts: list[str]) -> float:
    """Passages a second that the model takes in, in the groups that they are added in."""
    fresh = Embedder(minilm_folder())
    await fresh.vectors(["warm"])
    sample = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    began = time.perf_counter()
    for at in range(0, len(sample), BATCH):
        await fresh.vectors(sample[at : at + BATCH])
    seconds = time.perf_counter() - began
    fresh.close()
    return len(sample) / seconds


async def searches(data: Path, embedder: Embedder, texts: list[str], vectors: Vector) -> bool:
    """Questions made of the first sentences of passages."""
    step = max(1, len(texts) // QUESTIONS)
    questions = [" ".join(text.split()[1:13]) for text in texts[::step]][:QUESTIONS]
    search = Search(store_file(data))
    embeds, finds, recalls, homes = [], [], [], []
    for number, question in enumerate(questions):
        began = time.perf_counter()
        (vector,) = await embedder.vectors([question])
        embedded = time.perf_counter()
        found = search.find(question, vector, RECALL_AT)
        ended = time.perf_counter()
        embeds.append(1_000 * (embedded - began))
        finds.append(1_000 * (ended - embedded))
        exact = np.argsort(-(vectors @ vector), kind="stable")[:RECALL_AT]
        near = [id for id, _ in search._by_meaning(vector)[:RECALL_AT]]
        recalls.append(len({texts[id - 1] for id in near} & {texts[at] for at in exact}) / RECALL_AT)
        homes.append(any(texts[number * step].endswith(each.text) for each in found))
    search.close()
    p99 = float(np.percentile(finds, 99))
    print(f"searched    p50 {statistics.median(finds):.1f} ms, p99 {p99:.1f} ms (limit {SEARCH_LIMIT_MS:g})")
    print(f"            and to embed the question p50 {statistics.median(embeds):.1f} ms")
    print(f"recall@{RECALL_AT}   {statistics.mean(recalls):.3f} of the exact ten by meaning")
    print(f"hybrid      the passage that a question is made of is found: {statistics.mean(homes):.0%}")
    return p99 <= SEARCH_LIMIT_MS


def main() -> int:
    with tempfile.TemporaryDirectory() as data:
        return 0 if asyncio.run(measure(Path(data))) else 1


if __name__ == "__main__":
    sys.exit(main())
