"""A GGUF model in one file or in the parts that llama.cpp's split tool makes of it.

The parts lie in one folder, named `NAME-00001-of-00003.gguf` and so on. The first one has the metadata; each
has `split.no` (from 0), `split.count` and, of all parts together, `split.tensors.count`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from actors.models.errors import CorruptModel, UnsupportedModel
from actors.models.gguf_file import GgufFile, GgufTensor
from actors.models.source import SplitFile

_MERGE = "merge the parts first (llama-gguf-split --merge)"


class GgufModel:
    """The file `path`, or all parts if it is one of them; `path` is then the first part.

    Raises what `GgufFile` raises, and `UnsupportedModel` with the names of missing parts.
    """

    def __init__(self, path: Path) -> None:
        self._open = ExitStack()
        try:
            files = list(self._files(path))
            self.path = files[0].path
            self.paths = tuple(file.path for file in files)
            self.metadata: dict[str, Any] = files[0].metadata
            self.tensors: dict[str, GgufTensor] = {}
            for file in files:
                self._add(file)
            self._check_count()
        except BaseException:
            self._open.close()
            raise

    def close(self) -> None:
        """Drop the tensors."""
        self.tensors = {}
        self._open.close()

    def __enter__(self) -> GgufModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _files(self, path: Path) -> Iterator[GgufFile]:
        given = self._open.enter_context(GgufFile(path))
        count = _number(given, "split.count", 1)
        if count <= 1:
            yield given
            return
        number = _number(given, "split.no", 0) + 1
        what = f"{path.name} is part {number} of {count}"
        part = SplitFile.of(path.name)
        if part is None or (part.number, part.count) != (number, count):
            usual = f"NAME-{number:05}-of-{count:05}.gguf"
            raise UnsupportedModel(f"{what}: {_MERGE}, or name each as the split tool does, {usual}")
        places = [path.with_name(name) for name in part.siblings]
        missing = [place.name for place in places if place != path and not place.is_file()]
        if missing:
            listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise UnsupportedModel(f"{what}: {_MERGE}, or put beside it what is missing: {listed}")
        for at, place in enumerate(places):
            file = given if place == path else self._open.enter_context(GgufFile(place))
            if (_number(file, "split.no", 0), _number(file, "split.count", 1)) != (at, count):
                raise CorruptModel(f"{place.name} is not part {at + 1} of {count} as its name says")
            yield file

    def _add(self, file: GgufFile) -> None:
        twice = self.tensors.keys() & file.tensors.keys()
        if twice:
            raise CorruptModel(f"{file.path.name} has the tensor {min(twice)!r}, which another part has too")
        self.tensors |= file.tensors

    def _check_count(self) -> None:
        expected = self.metadata.get("split.tensors.count", len(self.tensors))
        if len(self.paths) > 1 and expected != len(self.tensors):
            raise CorruptModel(
                f"the parts of {self.path.name} have {len(self.tensors)} tensors, and should have {expected}"
            )


def _number(file: GgufFile, key: str, default: int) -> int:
    value = file.metadata.get(key, default)
    if not isinstance(value, int) or not 0 <= value < 100_000:
        raise CorruptModel(f"{file.path.name} is damaged: {key} {value!r}")
    return value
