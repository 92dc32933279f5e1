"""Tokens into hidden states: the second step of an embedding. All requests of a batch are computed
together."""

from __future__ import annotations

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils

from actors.triton.models.embedding import SentenceEncoder, TokenBatch


class TritonPythonModel:
    def initialize(self, args):
        folder = json.loads(args["model_config"])["parameters"]["folder"]["string_value"]
        self.encoder = SentenceEncoder(Path(folder), on_gpu=args["model_instance_kind"] == "GPU")

    def execute(self, requests):
        batches = [
            TokenBatch(
                pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy(),
                pb_utils.get_input_tensor_by_name(request, "attention_mask").as_numpy(),
            )
            for request in requests
        ]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("hidden", states)])
            for states in self.encoder.hidden(batches)
        ]
