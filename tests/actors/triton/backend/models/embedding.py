"""An embedding model of Triton whose vectors tell the length of each text and the size of its batch.

A batch with a text "slow" takes 10 ms.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        texts = [pb_utils.get_input_tensor_by_name(each, "text").as_numpy() for each in requests]
        batch = sum(map(len, texts))
        if any(b"slow" in each for each in texts):
            time.sleep(0.01)
        return [answer(each[:, 0], batch) for each in texts]


def answer(texts: Any, batch: int) -> Any:
    if b"fail" in texts:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError("CUDA error: out of memory"))
    vectors = np.array([[len(text), batch] for text in texts], np.float32)
    counts = np.array([[len(text.split())] for text in texts], np.int32)
    tensors = [pb_utils.Tensor("embedding", vectors), pb_utils.Tensor("token_count", counts)]
    return pb_utils.InferenceResponse(tensors)
