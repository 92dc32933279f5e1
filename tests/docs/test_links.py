from pathlib import Path

from tests.docs.links import broken_links


def test_a_link_to_a_missing_file_or_heading_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A heading, of `other`\n\n## Twice\n\n## Twice\n")
    (tmp_path / "picture.svg").write_text("<svg/>")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#a-heading-of-other) [c](other.md#twice-1) [d](#here) [e](https://example.org/x)\n"
        "\n# Here\n\n<img src='picture.svg'>\n"
    )
    assert broken_links(page) == []
    page.write_text(
        "[a](gone.md) [b](other.md#gone)\n\n# Here\n\n[c](#gone) ![d](gone.svg)\n\n<img src='gone.png'>\n"
    )
    problems = [problem.partition(": ")[2] for problem in broken_links(page)]
    assert problems == [
        "no file 'gone.md'",
        "other.md has no heading for #gone",
        "page.md has no heading for #gone",
        "no file 'gone.svg'",
        "no file 'gone.png'",
    ]
