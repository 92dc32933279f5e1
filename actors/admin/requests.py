"""What all requests of operators share: pages, reasons, and the errors of what is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from pydantic import Field

from actors.config.cluster_settings import MAX_REASON
from orchestration.errors import InvalidRequest
from orchestration.messages import Wire

T = TypeVar("T")
MAX_PAGE = 1000
SHOWN = 50
"""Maximum names that an error lists."""


class NotThere(InvalidRequest):
    """A node, queue, run or key of this name does not exist."""

    status = 404
    code = "not_there"

    @classmethod
    def of(cls, what: str, name: str, known: Iterable[str], param: str, which: str = "") -> NotThere:
        """The error for `what`, such as a node, that is called `name`; it lists those that are `known`.
        `which` says more about what is sought, such as `with model 'm'`."""
        names = sorted(known)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        sought = f"{name!r} {which}".rstrip()
        return cls(f"no {what} {sought}; there are: {', '.join(names[:SHOWN]) or 'none'}{more}", param=param)


class Refused(InvalidRequest):
    """The change would do harm as things are. The message says what would permit it."""

    status = 409
    code = "refused"


class PageRequest(Wire):
    """A page of a list, in the order of its names."""

    limit: int = Field(default=100, ge=1, le=MAX_PAGE)
    """Maximum entries on the page, 1 to 1000. Default: 100."""
    after: str = Field(default="", max_length=512)
    """`next` of the page before; empty: the first page."""


class ChangeRequest(Wire):
    """A change by an operator."""

    reason: str = Field(default="", max_length=MAX_REASON)
    """Why; it is recorded with the change. At most 500 characters."""


def page_of(
    items: Sequence[T], request: PageRequest, key: Callable[[T], str], show: Callable[[T], dict[str, Any]]
) -> dict[str, Any]:
    """A page of `items`, which are sorted by `key`. `next` is the `after` of the next page, '' at the end."""
    later = [item for item in items if key(item) > request.after]
    page = later[: request.limit]
    more = key(page[-1]) if len(later) > len(page) else ""
    return {"object": "list", "data": [show(item) for item in page], "next": more}
