"""Everything of Orchestra that does input and output: NATS, HTTP, models, processes, the command line."""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """`__version__`, looked up on first use: the lookup takes longer than printing a command's help."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("orchestra-llm")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0.0.0"
