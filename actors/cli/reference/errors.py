"""The reference page of errors: code, HTTP status, whether to try again, and what it means."""

from __future__ import annotations

from collections.abc import Iterator

from actors.cli.reference.source import modules_with, one_line, table
from orchestration.errors import InternalError, OrchestraError

HEAD = """# Errors

Over HTTP an error is `{"error": {"message", "type", "code", "param"}}` with the status below, as in OpenAI's
API. Over NATS the reply has the same body and the headers `Nats-Service-Error` and `Nats-Service-Error-Code`.
*Try again* says whether the same request may succeed later; where the server knows when, the answer has the
header `Retry-After`, in seconds.
"""


def page() -> str:
    """The page as Markdown."""
    for _ in modules_with(r'\n    code = "'):
        pass  # each import adds its classes to the tree
    rows = sorted(
        {
            (f"{error.status}", f"`{error.code}`", "yes" if error.retryable else "no", _meaning(error))
            for error in _tree(OrchestraError)
            if error.__module__.split(".")[0] in ("actors", "orchestration")
        }
    )
    return f"{HEAD}\n{table(('status', 'code', 'try again', 'what it means'), rows)}"


def _tree(root: type[OrchestraError]) -> Iterator[type[OrchestraError]]:
    for child in root.__subclasses__():
        if "code" in vars(child) or child is InternalError:
            yield child
        yield from _tree(child)


def _meaning(error: type[OrchestraError]) -> str:
    return one_line(error.__doc__ or "")
