"""What pydantic says of invalid data, in the words of our error messages; texts of a form, and addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint of pydantic. As text it is `where: message`."""

    path: tuple[str, ...]
    """The names that lead to the field; empty for the data as a whole."""
    message: str
    type: str
    """Pydantic's name for the kind of problem."""

    @property
    def where(self) -> str:
        """The field, such as `messages.0.role`; '' for the data as a whole."""
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


def first_problem(error: ValidationError, *, under: str = "") -> Problem:
    """The first complaint; `under` is the name of the data that was checked, which begins `where`."""
    first = error.errors(include_url=False, include_context=False)[0]
    path = tuple(str(part) for part in first["loc"] if part != "[key]")
    message = first["msg"].removeprefix("Value error, ").replace("Tuple", "List").replace(" tuple", " list")
    if isinstance(first["input"], str):
        message = message.replace(" items ", " characters ").replace("Value should", "Text should")
    return Problem((under, *path) if under else path, message, first["type"])


@dataclass(frozen=True, slots=True)
class TextForm:
    """Annotates a text that must match `pattern`: `Annotated[str, TextForm(r"^[a-z]+$", "small letters")]`.
    An error says it in `words`; schemas show the pattern."""

    pattern: str
    words: str

    @classmethod
    def name(cls, signs: str, most: int) -> TextForm:
        """The form of names of 1 to `most` letters, digits and these signs."""
        words = f"a name of 1 to {most} letters, digits and the signs {' '.join(signs)}"
        return cls(f"^[A-Za-z0-9{signs}]{{1,{most}}}$", words)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"pattern": self.pattern}

    def _check(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(f"{text[:80]!r} is not {self.words}")
        return text


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`. Raises ValueError saying what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{address!r} is not host:port")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError(f"{port!r} in {address!r} is not a port (0 to 65535)")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address needs brackets: [{host}]:{port}")
    return host, int(port)
