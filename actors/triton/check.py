"""Checks the version and the extensions of a running Triton, by `GET /v2`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from actors.triton.errors import TritonError, WrongVersion

if TYPE_CHECKING:
    import aiohttp

OLDEST = (2, 39)
"""The oldest supported version: the first whose Python models see cancelled requests (container 23.10)."""
NEEDED = ("model_repository", "statistics")


def check_version(version: str, extensions: Collection[str]) -> None:
    """Raises `WrongVersion` for a server that is too old, of another major version, or lacks an extension."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(numbers) < 2 or numbers[0] != OLDEST[0] or numbers < OLDEST:
        raise WrongVersion(
            f"Triton {version or 'of an unknown version'} is running; Orchestra needs 2.{OLDEST[1]} or a "
            "later 2.x, in which models see cancelled requests (container 23.10 or later)"
        )
    missing = [name for name in NEEDED if name not in extensions]
    if missing:
        raise WrongVersion(
            f"Triton {version} runs without the extension {', '.join(missing)}, which Orchestra needs"
        )


async def check_server(http: aiohttp.ClientSession, base: str) -> str:
    """The version of the server at the HTTP address `base`, checked. Raises `WrongVersion`, `TritonError`."""
    async with http.get(f"{base}/v2") as answer:
        if answer.status != 200:
            raise TritonError(f"{base}/v2 answered {answer.status}: no Triton at this address")
        metadata = await answer.json(content_type=None)
    version = str(metadata.get("version", ""))
    check_version(version, metadata.get("extensions", ()))
    return version
