"""Questions to llama.cpp's own server that tests of fidelity ask."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

_MOST = 2000
"""Alternatives asked for at first; the whole vocabulary takes 0.4 s more."""


@dataclass(frozen=True, slots=True)
class Next:
    """The likeliest next token, and the natural-log probability of the one that came."""

    best: int
    logprob: float


class LlamaCpp:
    """A client of the server at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def tokenize(self, text: str, *, specials: bool) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": specials}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """The tokens that follow `ids`, each the likeliest."""
        body = {"prompt": ids, "n_predict": count, "temperature": 0, "return_tokens": True}
        return [int(token) for token in self._post("/completion", body)["tokens"]]

    def after(self, ids: list[int], token: int, vocabulary: int) -> Next:
        """What the model gives for the place after `ids`, where `token` came."""
        for most in (_MOST, vocabulary):
            body = {"prompt": ids, "n_predict": 1, "n_probs": most, "temperature": 0, "cache_prompt": True}
            ranked = self._post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
            for candidate in ranked:
                if candidate["id"] == token:
                    return Next(best=int(ranked[0]["id"]), logprob=float(candidate["logprob"]))
        raise AssertionError(f"token {token} has no probability")
