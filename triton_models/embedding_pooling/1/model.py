"""Hidden states into vectors of length 1: the last step of an embedding."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from actors.triton.models.embedding import pool


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(
                        "embedding",
                        pool(
                            pb_utils.get_input_tensor_by_name(request, "hidden").as_numpy(),
                            pb_utils.get_input_tensor_by_name(request, "attention_mask").as_numpy(),
                        ),
                    )
                ]
            )
            for request in requests
        ]
