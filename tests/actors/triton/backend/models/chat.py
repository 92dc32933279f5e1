"""A chat model of Triton that does what the last message says, so that a test decides what happens.

count N [every S]      w0 w1 … of N tokens, each S seconds after the last
hang [after N]         N tokens, and then nothing, ever
fail TEXT              the error TEXT
odd OUTPUT             the answer "odd" with nonsense in that output
told                   how many requests were cancelled so far
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.cancelled = 0

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            answer = (request, request.get_response_sender())
            threading.Thread(target=self.answer, args=answer, daemon=True).start()

    def answer(self, request: Any, sender: Any) -> None:
        command, _, rest = script(request).partition(" ")
        if command == "count":
            number, _, every = rest.partition(" every ")
            self.count(request, sender, int(number), float(every or 0))
            sender.send(response("", 0, "stop", int(number)), flags=FINAL)
        elif command == "hang":
            self.count(request, sender, int(rest.removeprefix("after ") or 0), 0.0)
        elif command == "odd":
            sender.send(response("odd", 1, "stop", 1, odd=rest), flags=FINAL)
        elif command == "told":
            sender.send(response(str(self.cancelled), 1, "stop", 1), flags=FINAL)
        else:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(rest)), flags=FINAL)

    def count(self, request: Any, sender: Any, number: int, every: float) -> None:
        done = pb_utils.get_input_tensor_by_name(request, "prefix_tokens")
        for at in range(0 if done is None else int(done.as_numpy()[0]), number):
            time.sleep(every)
            if sender.is_cancelled():
                self.cancelled += 1
                return
            sender.send(response(f"w{at} ", 1, "", 0))


def script(request: Any) -> str:
    text = pb_utils.get_input_tensor_by_name(request, "text_input")
    if text is not None:
        return str(text.as_numpy()[0].decode())
    messages = json.loads(pb_utils.get_input_tensor_by_name(request, "messages").as_numpy()[0])
    return str(messages[-1]["content"]) if messages else "fail invalid_request: messages is empty"


def response(text: str, tokens: int, reason: str, total: int, *, odd: str = "") -> Any:
    usage = json.dumps({"prompt_tokens": 3, "completion_tokens": total}) if reason else ""
    said = {"text_output": text, "finish_reason": reason, "usage": usage}
    if odd in said:
        said[odd] = "{" if odd == "usage" else "no such reason"
    tensors = [pb_utils.Tensor(name, np.array([value.encode()], object)) for name, value in said.items()]
    tensors.append(pb_utils.Tensor("token_count", np.array([tokens], np.int32)))
    return pb_utils.InferenceResponse(tensors)
