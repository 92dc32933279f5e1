"""The players: everything of Orchestra that lives, waits or talks."""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: the look-up takes longer than a command's help."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("orchestra-llm")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0.0.0"
