"""Lines from a pipe and from a file."""

from __future__ import annotations

import os
from pathlib import Path

from actors.cli.lines import LineReader


async def test_lines_come_one_by_one_however_they_were_written(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, "one\ntwo\n\nthr\u00e9".encode())
    os.close(theirs)
    lines = LineReader(ours)
    assert [await lines.next() for _ in range(5)] == ["one", "two", "", "thr\u00e9", ""]
    os.close(ours)
    file = tmp_path / "lines"
    file.write_text("one\n" * 3)
    with file.open("rb") as opened:
        lines = LineReader(opened.fileno())
        assert [await lines.next() for _ in range(4)] == ["one", "one", "one", ""]
