"""One operation of the API, the same over HTTP and NATS."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from actors.gateway.http_context import JSON, Header, HttpContext
from actors.runtime.service import invalid_request
from orchestration.errors import InvalidRequest
from orchestration.messages import Wire

S = TypeVar("S")
_CONVERTOR = re.compile(r":\w+}")


class Access(Enum):
    """Which API key an HTTP route needs, where the settings name callers."""

    KEY = "key"
    OPEN = "open"
    OPTIONAL_KEY = "optional key"
    """No key is needed, but one that is sent must be valid: clients list the models to check their key."""
    ADMIN = "admin key"
    """The key needs the scope `admin`. Where the settings name no callers, only a gateway that listens on a
    loopback address answers."""


class NoFields(Wire):
    """The request of an operation without parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """The caller of an operation, and the headers of its request.

    `caller` is the caller's name. It is '' only over NATS without the header `Orchestra-Caller`: NATS' own
    permissions guard its subjects, so such a client may see and change everything, as the command line does.
    `header` returns a request header by its name in any case, or ''.
    """

    caller: str
    header: Callable[[str], str]
    trace: str = ""

    @property
    def operator(self) -> str:
        """The caller in records of changes; `nats` for one that has no name."""
        return self.caller or "nats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer of an operation. Over NATS only `body` is sent."""

    body: bytes
    status: int = 200
    headers: tuple[Header, ...] = ()
    content_type: Header = JSON


Handler = Callable[[Any, CallContext], Awaitable[Reply]]
HttpHandler = Callable[[HttpContext], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Operation(Generic[S]):
    """A row of the table of operations. `S` holds the services whose methods answer.

    `request` is the model of the parameters: over HTTP they come from the path, and from the JSON body of a
    POST or the query of a GET; over NATS all are in the JSON body. With `raw`, the handler gets the body
    undecoded, and `request` only describes it.

    One of `handler` and `http_handler` answers. An `http_handler` writes the HTTP response itself, as
    streams do; what it does over NATS, if `subject` is set, is served elsewhere.
    """

    name: str
    """The name of the NATS endpoint."""
    method: str
    path: str
    """Starlette's syntax, for example `/v1/jobs/{id}`."""
    summary: str
    _: KW_ONLY
    subject: str = ""
    """The NATS subject; '' for an operation that only HTTP has."""
    request: type[BaseModel] = NoFields
    raw: bool = False
    max_bytes: int | None = None
    """Maximum body size; default `gateway.max_body_bytes`. A larger body is refused with 413."""
    access: Access = Access.KEY
    handler: Callable[[S], Handler] | None = None
    http_handler: Callable[[S], HttpHandler] | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """The HTTP methods, with HEAD where the operation only reads."""
        return ("GET", "HEAD") if self.method == "GET" and self.handler is not None else (self.method,)

    @property
    def route(self) -> str:
        """The path without Starlette's convertors, as metrics, traces and OpenAPI have it."""
        return _CONVERTOR.sub("}", self.path)

    @property
    def limit_name(self) -> str:
        """What limits the size of its body, for an error."""
        return "gateway.max_body_bytes" if self.max_bytes is None else "the limit of this operation,"

    @property
    def has_body(self) -> bool:
        """Whether an HTTP request of it has a body."""
        return self.method in ("POST", "PUT", "PATCH")

    def decode(self, body: bytes, others: Mapping[str, Any]) -> Any:
        """The request of `body` and of the parameters beside it. Raises `InvalidRequest`."""
        if self.raw:
            return body
        try:
            if self.access is Access.ADMIN:
                self._refuse_unknown(body, others)
            if not others:
                return self.request.model_validate_json(body)
            fields = from_json(body) if body else {}
            if not isinstance(fields, dict):
                raise InvalidRequest("body: a JSON object is needed")
            return self.request.model_validate({**fields, **others})
        except ValidationError as error:
            raise invalid_request(error) from error
        except ValueError as error:
            raise InvalidRequest(f"body: invalid JSON: {error}") from error

    def _refuse_unknown(self, body: bytes, others: Mapping[str, Any]) -> None:
        """Raise `InvalidRequest` for a parameter that the operation does not have. An operator who misspells
        `dry_run` or a filter would change more than was meant."""
        fields = from_json(body) if body else {}
        known = self.request.model_fields
        names = {*others, *fields} if isinstance(fields, dict) else {*others}
        for name in sorted(names - known.keys()):
            has = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(
                f"unknown parameter {name[:80]!r}; this operation has: {has}", param=name[:80]
            )
