"""Answers with the OpenAPI description of the operations of operators."""

from __future__ import annotations

from collections.abc import Callable

from actors.gateway.operation import CallContext, NoFields, Reply


class Description:
    """`describe` makes the text, once, when it is first asked for."""

    def __init__(self, describe: Callable[[], str]) -> None:
        self._describe = describe
        self._text = b""

    async def openapi(self, request: NoFields, call: CallContext) -> Reply:
        self._text = self._text or self._describe().encode()
        return Reply(body=self._text)
