"""Sentences into tokens: the first step of an embedding, as Triton's Python backend runs it."""

from __future__ import annotations

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils

from actors.triton.models.embedding import SentenceTokenizer
from orchestration.errors import OrchestraError


class TritonPythonModel:
    def initialize(self, args):
        folder = json.loads(args["model_config"])["parameters"]["folder"]["string_value"]
        self.tokenizer = SentenceTokenizer(Path(folder))

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().ravel()
        try:
            tokens = self.tokenizer.tokens([text.decode("utf-8", "replace") for text in texts])
        except OrchestraError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{error.code}: {error.message}"))
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", tokens.ids),
                pb_utils.Tensor("attention_mask", tokens.mask),
                pb_utils.Tensor("token_count", tokens.counts),
            ]
        )
