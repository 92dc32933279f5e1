from __future__ import annotations

from tests.fixtures.triton import own_triton, triton_server

__all__ = ["own_triton", "triton_server"]
