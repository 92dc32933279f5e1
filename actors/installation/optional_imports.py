"""Optional imports: packages of an extra, and a package without one of its dependencies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from orchestration.errors import OrchestraError


class ExtraMissing(OrchestraError):
    """A package of an extra is not installed; the text has the command that installs it."""

    code = "extra_missing"

    @classmethod
    def of(cls, extra: str, what: str, package: str) -> ExtraMissing:
        """`what` cannot be used without `package`."""
        return cls(f"{what} needs {package}: {install_command(extra)}")


def is_installed(package: str) -> bool:
    """Whether the top-level package `package` is installed. It is not imported."""
    return find_spec(package) is not None


def install_command(extra: str) -> str:
    """The command that installs the extra `extra`."""
    return f"pip install 'orchestra-llm[{extra}]'"


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Raise `ExtraMissing` if an import in the block does not find a package. `what` is the feature that
    needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise ExtraMissing.of(extra, what, package) from error


@contextmanager
def without_module(name: str) -> Iterator[None]:
    """Make `import name` fail in the block, unless the module is loaded already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
