"""The setting that maps served model names to an upstream's."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _named(value: dict[str, str]) -> dict[str, str]:
    for served, upstream in value.items():
        if not served or not upstream:
            raise ValueError(f"models must map names to names, not {served!r} to {upstream!r}")
    return value


UpstreamNames = Annotated[dict[str, str], AfterValidator(_named)]
"""Served names to the upstream's names."""
