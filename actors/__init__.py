"""The players: everything of Orchestra that lives, waits or talks."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("orchestra-llm")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
