"""A model with the tensors of NVIDIA's vLLM backend: says its prompt again in two tokens, then ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0].decode()
            sender = request.get_response_sender()
            sender.send(response(text[:5], "None"))
            sender.send(response(text[5:], "length"), flags=FINAL)


def response(text: str, reason: str) -> Any:
    strings = {"text_output": text, "finish_reason": reason}
    tensors = [pb_utils.Tensor(name, np.array([value.encode()], object)) for name, value in strings.items()]
    counts = {"num_input_tokens": 7, "num_output_tokens": 1}
    tensors += [pb_utils.Tensor(name, np.array([count], np.uint32)) for name, count in counts.items()]
    return pb_utils.InferenceResponse(tensors)
