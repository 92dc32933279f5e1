"""The text in documents of each kind, and what is said of those that have none."""

from __future__ import annotations

import pytest

from actors.knowledge.errors import UnreadableDocument
from actors.knowledge.formats import kind_of, read
from tests.actors.knowledge.documents import TEXTS, encrypted, pdf

GERMAN = "Größe, Länge und Höhe über alles: schöne Grüße aus Köln, möglichst früh. "


def test_markdown_is_cut_at_its_headings_and_not_at_hashes_in_programs() -> None:
    text = "# One\nfirst\n\n```sh\n# a comment\nls\n```\n\nTwo `code`\n---\nsecond"
    reading = read(text.encode(), "markdown")
    assert reading.title == "One"
    assert [section.heading for section in reading.sections] == ["One", "Two `code`"]
    assert "# a comment" in reading.sections[0].text
    assert reading.sections[1].text == "second"


def test_of_a_web_page_what_a_reader_sees_is_taken_by_its_headings() -> None:
    page = TEXTS["garden.html"].replace("</body>", "<script>alert(1)</script><style>p{}</style></body>")
    reading = read(page.encode(), "html")
    assert reading.title == "The roof garden"
    assert [section.heading for section in reading.sections] == ["Watering", "Bees"]
    assert reading.sections[0].text.startswith("Tomatoes are watered every morning before nine.")
    whole = " ".join(section.text for section in reading.sections)
    assert "alert" not in whole
    assert "Home" not in whole


def test_cells_of_a_table_and_words_around_tags_stay_apart_or_together_as_they_are_shown() -> None:
    page = (
        "<table><tr><td>May</td><td>40</td></tr><tr><td>June</td><td>52</td></tr></table><p>b<b>ol</b>d</p>"
    )
    text = read(page.encode(), "html").sections[0].text
    assert text == "May 40\n\nJune 52\n\nbold"


def test_a_pdf_is_read_page_by_page() -> None:
    reading = read(pdf("The harbour opens at six.", "Ferries leave hourly."), "pdf")
    assert [(section.heading, section.text.strip()) for section in reading.sections] == [
        ("page 1", "The harbour opens at six."),
        ("page 2", "Ferries leave hourly."),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_text_is_read_in_the_encoding_it_has(encoding: str) -> None:
    assert read((GERMAN * 5).encode(encoding), "text").sections[0].text == GERMAN * 5


def test_a_web_page_that_declares_latin_1_means_windows_1252() -> None:
    page = '<html><meta charset="iso-8859-1"><body><p>“5 €”</p></body></html>'
    reading = read(page.encode("cp1252"), "html")
    assert (reading.sections[0].text, reading.encoding) == ("“5 €”", "windows-1252")
    assert read(page.encode(), "html").encoding == "utf-8"


def test_a_web_page_is_read_in_the_encoding_it_declares() -> None:
    page = f'<html><head><meta charset="iso-8859-1"></head><body><p>{GERMAN}</p></body></html>'
    assert read(page.encode("latin-1"), "html").sections[0].text == GERMAN.strip()


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"", "text", "it is empty"),
        (b" \n\t ", "markdown", "it is empty"),
        (b"\x00\x01\x02" * 50, "text", "it is not text"),
        (bytes(range(256)) * 20, "text", "it is not text"),
        (b"<html><body><script>1</script></body></html>", "html", "it has no text"),
        (pdf(""), "pdf", "text recognition"),
        (b"%PDF-1.7 and then nothing", "pdf", "it is a damaged PDF"),
        (encrypted(pdf("secret plans"), "swordfish"), "pdf", "it is encrypted"),
    ],
)
def test_what_has_no_text_for_us_is_refused_saying_why(data: bytes, kind: str, said: str) -> None:
    with pytest.raises(UnreadableDocument, match=said):
        read(data, kind)  # type: ignore[arg-type]


def test_a_pdf_that_opens_without_a_password_is_read_though_it_is_encrypted() -> None:
    reading = read(encrypted(pdf("for all to read"), ""), "pdf")
    assert reading.sections[0].text.strip() == "for all to read"


def test_what_a_document_is_is_told_by_its_beginning_by_its_server_and_by_its_name() -> None:
    assert kind_of("report.txt", pdf("x")) == "pdf"
    assert kind_of("page", b"<!DOCTYPE html><p>hi") == "html"
    assert kind_of("page", b"hi", "text/html") == "html"
    assert kind_of("README.MD", b"hi") == "markdown"
    assert kind_of("Makefile", b"all:") == "text"
