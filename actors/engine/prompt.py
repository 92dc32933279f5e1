"""Builds the prompt tokens of a generation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.engine.tool_calling import render
from actors.models.chat_template import ChatTemplate
from actors.models.manifest import ModelManifest
from actors.models.tokenizer import Tokenizer
from orchestration.errors import ContextTooLong, InvalidRequest
from orchestration.messages import ChatGeneration, CompletionGeneration, TextGeneration


class PromptBuilder:
    """Renders and tokenises prompts. Control tokens in user text stay ordinary text. Thread-safe."""

    def __init__(self, manifest: ModelManifest, tokenizer: Tokenizer, *, context_tokens: int) -> None:
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._template = None
        if manifest.chat_template is not None:
            self._template = ChatTemplate(
                manifest.chat_template,
                manifest.bos_token,
                manifest.eos_token,
                tokenizer.control_tokens,
            )

    def build(self, generation: TextGeneration) -> NDArray[np.int64]:
        """The prompt's token ids [t], 1 <= t < context.

        Raises InvalidRequest for an empty prompt, and ContextTooLong for one that is too long.
        """
        ids = self._chat(generation) if generation.kind == "chat" else self._completion(generation)
        last = generation.sampling.truncate_prompt_tokens
        if last is not None:
            ids = ids[-last:]
        if len(ids) >= self._context_tokens:
            error = ContextTooLong.of(self._manifest.name, len(ids), self._context_tokens)
            error.param = "messages" if generation.kind == "chat" else "prompt"
            raise error
        return np.array(ids, np.int64)

    def prefix(self, generation: TextGeneration) -> NDArray[np.int64]:
        """The token ids of the answer's prefix, which follow the prompt."""
        return np.array(self._tokenizer.encode(generation.prefix, specials=False), np.int64)

    def _chat(self, generation: ChatGeneration) -> list[int]:
        if not generation.messages:
            raise InvalidRequest("messages is empty; send at least one", param="messages")
        if self._template is None:
            raise InvalidRequest(
                f"model {self._manifest.name!r} has no chat template; it completes plain prompts only",
                param="model",
            )
        ids: list[int] = []
        for segment in self._template.render([*map(render, generation.messages)], add_generation_prompt=True):
            ids += self._tokenizer.encode(segment.text, specials=segment.trusted)
        bos = self._manifest.bos_token_id
        if self._manifest.add_bos and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def _completion(self, generation: CompletionGeneration) -> list[int]:
        if generation.prompt_ids:
            return self._known(generation.prompt_ids)
        ids = self._tokenizer.encode(generation.prompt, specials=False)
        bos = self._manifest.bos_token_id
        if bos is not None and (self._manifest.add_bos or not ids):
            ids.insert(0, bos)
        if not ids:
            raise InvalidRequest("prompt is empty", param="prompt")
        return ids

    def _known(self, ids: tuple[int, ...]) -> list[int]:
        """A caller's token ids, checked against the vocabulary."""
        vocabulary = self._manifest.vocabulary
        for token in ids:
            if token >= vocabulary:
                raise InvalidRequest(
                    f"prompt: token {token} is out of range; the model has tokens 0 to {vocabulary - 1}",
                    param="prompt",
                )
        return list(ids)
