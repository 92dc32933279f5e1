"""A client of `/v1/jobs` with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


def chat(text: str = "one two three", model: str = "echo", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]} | more


class JobsClient:
    """A connection for each request, so that a gateway may die between two."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.address.hostname or "", self.address.port, timeout=30)
        try:
            data = None if body is None else json.dumps(body)
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, json.loads(answer.read()))
        finally:
            connection.close()

    def submit(self, body: dict[str, Any], key: str = "") -> Answer:
        return self.call("POST", "/v1/jobs", body, **({"Idempotency_Key": key} if key else {}))

    def get(self, job_id: str) -> dict[str, Any]:
        return self.call("GET", f"/v1/jobs/{job_id}").body

    def ended(self, job_id: str, *, within_s: float = 30) -> dict[str, Any]:
        """The job, once it has ended."""
        until = time.monotonic() + within_s
        while True:
            job = self.get(job_id)
            if job["status"] not in ("queued", "running"):
                return job
            assert time.monotonic() < until, f"not ended within {within_s} s: {job}"
            threading.Event().wait(0.02)
