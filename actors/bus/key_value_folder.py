"""A folder of a key-value bucket: keys that are read together, and removed together."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from actors.bus.key_value import OPERATION, Bucket
from actors.bus.message import Message
from actors.bus.subjects import decode_token, encode_token
from orchestration.errors import BusUnavailable, DeadlineExceeded

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder(Bucket):
    """Keys are subjects `$KV.<bucket>.<folder>.<key>`."""

    folder: str

    def subject(self, key: str) -> str:
        return f"{self._prefix}{encode_token(key)}"

    @property
    def _prefix(self) -> str:
        return f"$KV.{self.name}.{encode_token(self.folder)}."

    async def all(self) -> dict[str, bytes]:
        """The value of every key, in one request (JetStream's ADR-31). Raises `BusUnavailable`,
        `DeadlineExceeded`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found: dict[str, bytes] = {}

        def on_message(message: Message) -> None:
            if done.done():
                return
            if not message.status:
                subject = message.header("Nats-Subject")
                if not message.header(OPERATION):
                    found[decode_token(subject.removeprefix(self._prefix))] = message.data
            elif message.status in ("204", "404"):  # the end; no key
                done.set_result(None)
            else:
                done.set_exception(BusUnavailable(f"bucket {self.name!r} cannot be read: {message.status}"))

        reply = self.bus.expect(on_message)
        body = json.dumps({"multi_last": [f"{self._prefix}*"]}).encode()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self.bus.publish(f"$JS.API.DIRECT.GET.KV_{self.name}", body, reply=reply)
                await done
        except TimeoutError as error:
            raise DeadlineExceeded(f"bucket {self.name!r} did not answer within {TIMEOUT_S:g} s") from error
        finally:
            self.bus.forget(reply)
        return found

    async def remove(self) -> None:
        """Remove every key, without delete markers. Raises `BusUnavailable`."""
        body = json.dumps({"filter": f"{self._prefix}*"}).encode()
        answer = json.loads((await self._request(f"$JS.API.STREAM.PURGE.KV_{self.name}", body)).data)
        if "error" in answer:
            problem = answer["error"].get("description", "refused")
            raise BusUnavailable(f"{self.name}/{self.folder} cannot be removed now: {problem}")
