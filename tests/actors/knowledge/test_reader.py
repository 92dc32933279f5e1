"""Documents read in a process apart: what breaks it costs that document alone."""

from __future__ import annotations

import zlib

import pytest

from actors.knowledge.errors import DocumentTooLarge, UnreadableDocument
from actors.knowledge.reader import DocumentReader
from actors.knowledge.settings import KnowledgeSettings
from tests.actors.knowledge.documents import assembled, pdf

PLAIN = b"A plain text."


def still_reads(reader: DocumentReader) -> bool:
    return reader.read(PLAIN, "text").sections[0].text == PLAIN.decode()


def test_one_child_reads_many_documents_of_all_kinds() -> None:
    with DocumentReader(KnowledgeSettings()) as reader:
        assert still_reads(reader)
        child = reader._child
        assert reader.read("# Ä\nö".encode(), "markdown").sections[0].heading == "Ä"
        assert "harbour" in reader.read(pdf("The harbour"), "pdf").sections[0].text
        with pytest.raises(UnreadableDocument, match="it is empty"):
            reader.read(b"", "text")
        assert reader._child is child
    assert child is not None
    assert child.returncode is not None


def test_a_document_that_takes_too_long_is_given_up_and_the_next_is_read() -> None:
    with DocumentReader(KnowledgeSettings(read_timeout_s=0.001)) as reader:
        with pytest.raises(UnreadableDocument, match=r"0\.001 s \(knowledge\.read_timeout_s\)"):
            reader.read(PLAIN, "text")
        reader.settings = KnowledgeSettings()
        assert still_reads(reader)


def test_a_child_that_dies_fails_its_document_and_the_next_is_read() -> None:
    with DocumentReader(KnowledgeSettings()) as reader:
        assert still_reads(reader)
        assert reader._child is not None
        reader._child.kill()
        with pytest.raises(UnreadableDocument, match="its reader failed"):
            reader.read(PLAIN, "text")
        assert still_reads(reader)


def test_more_text_than_the_limit_is_refused_and_the_next_is_read() -> None:
    with DocumentReader(KnowledgeSettings(max_text_mb=0.5)) as reader:
        for size in (600_000, 5_000_000):
            with pytest.raises(DocumentTooLarge, match=r"0\.5 MB \(knowledge\.max_text_mb\)"):
                reader.read(b"word " * (size // 5), "text")
        assert still_reads(reader)


def test_a_pdf_that_unpacks_to_more_than_there_is_is_refused_within_the_childs_memory() -> None:
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(100)) + packer.flush()
    bomb = assembled(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R >>",
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed),
        ]
    )
    with DocumentReader(KnowledgeSettings(read_memory_mb=256)) as reader:
        with pytest.raises(UnreadableDocument):
            reader.read(bomb, "pdf")
        assert still_reads(reader)


def test_what_needs_more_memory_than_the_child_may_take_is_refused_by_the_settings_name() -> None:
    with DocumentReader(KnowledgeSettings(read_memory_mb=256)) as reader:
        with pytest.raises(UnreadableDocument, match=r"256 MB \(knowledge\.read_memory_mb\)"):
            reader.read(b"word " * 26_000_000, "text")
        assert still_reads(reader)
