"""Extracts the text of documents in a separate process, so that malicious documents do no harm.

The child reads documents from its stdin, one after another, and answers each with a line of JSON. It may use
`read_memory_mb` of memory and `read_timeout_s` per document. A document that breaks these limits or crashes
the child fails alone; the next one gets a new child. The child writes no files and dies with its parent.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Self

from actors.child_server import die_with_parent
from actors.knowledge.document import ParsedDocument, Section
from actors.knowledge.errors import DocumentTooLarge, UnreadableDocument
from actors.knowledge.formats import Kind, read
from actors.knowledge.settings import KnowledgeSettings

MB = 1_000_000
_CHUNK = 65_536
_KILL_S = 5.0


class DocumentReader:
    """A context manager. Use it in one thread: the child ends with the thread that started it."""

    def __init__(self, settings: KnowledgeSettings) -> None:
        self.settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def read(self, data: bytes, kind: Kind, encoding: str = "") -> ParsedDocument:
        """As `formats.read`; blocks. Raises `UnreadableDocument` for a document without text or beyond the
        child's limits, and `DocumentTooLarge` for too much text."""
        child = self._started()
        assert child.stdin is not None
        try:
            child.stdin.write(
                json.dumps({"kind": kind, "encoding": encoding, "bytes": len(data)}).encode() + b"\n"
            )
            child.stdin.write(data)
            child.stdin.flush()
            answer = json.loads(self._answer(child))
        except (BrokenPipeError, EOFError) as error:
            raise UnreadableDocument(self._why(child)) from error
        except (UnreadableDocument, DocumentTooLarge):
            self._end()
            raise
        if "error" in answer:
            raise UnreadableDocument(answer["error"])
        sections = tuple(Section(*section) for section in answer["sections"])
        reading = ParsedDocument(answer["title"], sections, answer["encoding"])
        if sum(len(section.text.encode()) for section in reading.sections) > self.settings.max_text_mb * MB:
            raise self._too_long()
        return reading

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
            command = [sys.executable, "-P", "-m", __name__, str(os.getpid())]
            self._child = subprocess.Popen(
                [*command, str(self.settings.read_memory_mb)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )
        return self._child

    def _answer(self, child: subprocess.Popen[bytes]) -> bytes:
        """The child's next line. Raises EOFError if it ends first."""
        assert child.stdout is not None
        max_bytes = 2 * self.settings.max_text_mb * MB + _CHUNK  # JSON takes up to twice as much for a text
        limit = self.settings.read_timeout_s
        until = time.monotonic() + limit
        line = bytearray()
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise UnreadableDocument(
                    f"its text was not extracted within {limit:g} s (knowledge.read_timeout_s)"
                )
            part = os.read(child.stdout.fileno(), _CHUNK)
            if not part:
                raise EOFError
            line += part
            if len(line) > max_bytes:
                raise self._too_long()
        return bytes(line)

    def _too_long(self) -> DocumentTooLarge:
        return DocumentTooLarge(f"its text exceeds {self.settings.max_text_mb:g} MB (knowledge.max_text_mb)")

    def _why(self, child: subprocess.Popen[bytes]) -> str:
        """Why the child ended, from its stderr."""
        child.wait()
        assert self._errors is not None
        self._errors.seek(0)
        stderr = self._errors.read()[-2_000:].decode(errors="replace").strip().rpartition("\n")[2]
        code = child.returncode
        self._end()
        if "MemoryError" in stderr:
            return f"reading it needs more than {self.settings.read_memory_mb} MB (knowledge.read_memory_mb)"
        return f"its reader failed: {stderr or f'ended with {code}'}"[:300]

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait(_KILL_S)
            for stream in (child.stdin, child.stdout, self._errors):
                if stream is not None:
                    with suppress(BrokenPipeError):  # unwritten data is dropped
                        stream.close()


def _answer_to(data: bytes, kind: Kind, encoding: str) -> dict[str, Any]:
    try:
        reading = read(data, kind, encoding)
    except UnreadableDocument as error:
        return {"error": error.message}
    sections = [(section.heading, section.text) for section in reading.sections]
    return {"title": reading.title, "sections": sections, "encoding": reading.encoding}


def main() -> None:
    """The child's loop."""
    parent, memory_mb = int(sys.argv[1]), int(sys.argv[2])
    if sys.platform == "linux":
        die_with_parent.use_kernel(parent)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * MB, memory_mb * MB))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, MB))  # only its stderr is a file
    logging.disable(logging.CRITICAL)  # libraries complain of each oddity of a document
    while header := sys.stdin.buffer.readline():
        request = json.loads(header)
        answer = _answer_to(sys.stdin.buffer.read(request["bytes"]), request["kind"], request["encoding"])
        line = json.dumps(answer, ensure_ascii=False).encode(errors="replace")
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
