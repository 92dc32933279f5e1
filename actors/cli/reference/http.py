"""The reference of the operations of clients and of operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.admin.operations import ADMIN_OPERATIONS
from actors.cli.reference.source import fields_of, one_line, table, type_name
from actors.gateway.operation import Operation
from actors.gateway.operations import OPERATIONS

HEAD = """# HTTP and NATS operations

A gateway serves these operations. Over HTTP, parameters come from the path, from the JSON body of a POST, or
from the query of a GET; over NATS all are in the JSON body of the request. Errors have the codes of
[errors.md](errors.md).
[openapi.json](openapi.json) describes the HTTP side for tools.
"""
ADMIN_HEAD = """# Operations for operators

A gateway serves these operations to callers whose key has the scope `admin`
(`[gateway.callers.NAME] scopes = ["admin"]`). Without callers in the settings only a gateway that listens on
a loopback address does. Over HTTP, parameters come from the path, from the JSON body of a POST, or from the
query of a GET; over NATS all are in the JSON body of the request, and NATS' permissions on
`orchestra.admin.>` decide who may send them. Each change is recorded as an event `admin.changed`: who, what,
before, after, why. Errors have the codes of [errors.md](errors.md).
[admin-openapi.json](admin-openapi.json) describes the HTTP side for tools; a gateway serves it at
`/admin/openapi.json`.
"""


def page() -> str:
    """The page of clients' operations as Markdown."""
    return _page(HEAD, OPERATIONS)


def admin_page() -> str:
    """The page of operators' operations as Markdown."""
    return _page(ADMIN_HEAD, ADMIN_OPERATIONS)


def _page(text: str, operations: Sequence[Operation[Any]]) -> str:
    rows = [
        (
            f"`{each.name}`",
            f"`{each.method} {each.route}`",
            f"`{each.subject}`" if each.subject else "",
            each.access.value,
            one_line(each.summary),
        )
        for each in operations
    ]
    head = ("operation", "HTTP", "NATS subject", "access", "what it does")
    return f"{text}\n{table(head, rows)}{''.join(_fields(each) for each in operations)}"


def _fields(operation: Operation[Any]) -> str:
    rows = [
        (
            f"`{name}`",
            type_name(field.annotation),
            "yes" if field.is_required() and "." not in name else "",
            text,
        )
        for name, field, text in fields_of(operation.request)
        for needed in (field.is_required() and "." not in name,)
    ]
    rows.sort(key=lambda row: row[2] != "yes")
    if not rows:
        return ""
    about = one_line(operation.request.__doc__)
    fields = table(("field", "type", "required", "what it is"), rows)
    return f"\n## {operation.name}\n\n{about}\n\n{fields}"
