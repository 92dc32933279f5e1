from __future__ import annotations

from tests.fixtures.llamacpp import llamacpp

__all__ = ["llamacpp"]
