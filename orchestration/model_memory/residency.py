"""Which models are in a memory that may not hold all of them; the least recently used is evicted first."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from orchestration.errors import InvalidRequest


class Residency:
    """`sizes` are the bytes of each model; 0 is an unknown size, which takes no room here. A `limit_bytes` of
    0 means no limit. Iterates over the models in memory, the least recently used first.

    Raises `InvalidRequest` for a model that is larger than the limit.
    """

    def __init__(self, limit_bytes: int, sizes: Mapping[str, int]) -> None:
        self.limit_bytes = limit_bytes
        self.sizes: dict[str, int] = {}
        for model, size in sizes.items():
            self.add(model, size)
        self._in: dict[str, None] = {}

    def check(self, model: str, size: int) -> None:
        """Raises `InvalidRequest` if a model of `size` bytes can never be in memory."""
        if 0 < self.limit_bytes < size:
            raise InvalidRequest(
                f"model {model!r} takes {_mb(size)}, more than the whole memory limit of "
                f"{_mb(self.limit_bytes)} (memory_mb)",
                param="memory_mb",
            )

    def add(self, model: str, size: int) -> None:
        """One more model, which is not in memory. Raises as `check` does."""
        self.check(model, size)
        self.sizes[model] = size

    def __contains__(self, model: str) -> bool:
        return model in self._in

    def __iter__(self) -> Iterator[str]:
        return iter(self._in)

    @property
    def used_bytes(self) -> int:
        return sum(self.sizes[model] for model in self._in)

    @property
    def contended(self) -> bool:
        """Whether the models do not all fit at once."""
        return 0 < self.limit_bytes < sum(self.sizes.values())

    def use(self, model: str) -> None:
        """Mark a model as in memory and just used."""
        self._in.pop(model, None)
        self._in[model] = None

    def remove(self, model: str) -> None:
        """Mark a model as not in memory; does nothing if it was not."""
        self._in.pop(model, None)

    def victims(self, model: str, keep: Container[str] = ()) -> list[str] | None:
        """The models to evict so that `model` fits, none of `keep` among them; None if that is not enough."""
        if not self.limit_bytes:
            return []
        excess = self.used_bytes + self.sizes[model] - self.limit_bytes
        found: list[str] = []
        for each in self._in:
            if excess <= 0:
                break
            if each != model and each not in keep and self.sizes[each]:
                found.append(each)
                excess -= self.sizes[each]
        return found if excess <= 0 else None

    def fitting(self) -> list[str]:
        """The models that fit together, in their order; a model that does not fit is skipped."""
        found: list[str] = []
        free_bytes = self.limit_bytes or sum(self.sizes.values())
        for model, size in self.sizes.items():
            if size <= free_bytes:
                found.append(model)
                free_bytes -= size
        return found


def _mb(size: int) -> str:
    return f"{size / 1e6:.4g} MB"
