"""Builds the input tensors of a Triton model from a generation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput

from actors.triton.backend.served_model import ServedModel
from orchestration.errors import InvalidGuide, InvalidRequest, Unavailable
from orchestration.messages import ChatMessage, CompletionGeneration, TextGeneration

_VLLM_FLAGS = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")
_VLLM_SAME_NAME = (
    "temperature", "top_p", "top_k", "seed", "max_tokens", "repetition_penalty", "frequency_penalty",
    "presence_penalty", "min_p", "min_tokens", "ignore_eos", "stop_token_ids", "logit_bias",
    "truncate_prompt_tokens",
)  # fmt: skip


def chat_inputs(model: ServedModel, generation: TextGeneration) -> list[InferInput]:
    """The inputs of a chat. Raises `InvalidRequest`; `Unavailable` if only another node can continue it."""
    if not model.own:
        return _foreign(model, generation)
    inputs = [_bytes("sampling_parameters", json.dumps(_sampling(generation)))]
    if generation.kind == "chat":
        messages = [message.model_dump(exclude_defaults=True) for message in generation.messages]
        inputs.append(_bytes("messages", json.dumps(messages, ensure_ascii=False)))
    else:
        inputs.append(_bytes("text_input", _prompt(generation)))
    if generation.prefix or generation.prefix_tokens:
        inputs.append(_bytes("prefix", generation.prefix))
        inputs.append(_tensor("prefix_tokens", np.array([generation.prefix_tokens], np.int32), "INT32"))
    return inputs


def probe_inputs(model: ServedModel) -> list[InferInput]:
    """Inputs of a cheap probe; empty for a foreign chat model.

    Orchestra's own chat models answer an empty list of messages at once, with an error.
    """
    if model.embeds:
        return embedding_inputs(["a"])
    return [_bytes("messages", "[]")] if model.own else []


def embedding_inputs(texts: Sequence[str]) -> list[InferInput]:
    """The inputs of a batch of texts [n, 1]."""
    return [_tensor("text", np.array([[text.encode()] for text in texts], object), "BYTES")]


def _prompt(generation: CompletionGeneration) -> str:
    if generation.prompt_ids:
        raise InvalidRequest(
            f"model {generation.model!r} accepts no token ids through Triton", param="prompt"
        )
    return generation.prompt


def _sampling(generation: TextGeneration) -> dict[str, Any]:
    fields = generation.sampling.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if generation.guide is not None:
        fields["guide"] = generation.guide.model_dump(mode="json", exclude_none=True)
    return fields


def _foreign(model: ServedModel, generation: TextGeneration) -> list[InferInput]:
    """The tensors of NVIDIA's vLLM backend, which has no messages, prefixes or guides."""
    sampling = generation.sampling
    if generation.guide is not None:
        raise InvalidGuide(f"model {generation.model!r} accepts no guide through Triton", param="guide")
    if sampling.logprobs:
        raise InvalidRequest(
            f"model {generation.model!r} returns no logprobs through Triton", param="logprobs"
        )
    text = _rendered(model, generation.messages) if generation.kind == "chat" else _prompt(generation)
    fields = {name: value for name in _VLLM_SAME_NAME if (value := getattr(sampling, name)) is not None}
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if "max_tokens" in fields:
        fields["max_tokens"] = max(1, fields["max_tokens"] - generation.prefix_tokens)
    inputs = [_bytes("text_input", text + generation.prefix)]
    if "sampling_parameters" in model.inputs:
        inputs.append(_bytes("sampling_parameters", json.dumps(fields)))
    elif generation.prefix:
        raise Unavailable(
            f"model {generation.model!r} accepts no sampling parameters, so it cannot continue an answer"
        )
    flags = {"stream": True, "exclude_input_in_output": True, **dict.fromkeys(_VLLM_FLAGS, True)}
    inputs += [_tensor(name, np.array([on]), "BOOL") for name, on in flags.items() if name in model.inputs]
    return inputs


def _rendered(model: ServedModel, messages: Sequence[ChatMessage]) -> str:
    if model.template is None:
        return "".join(f"{message.role}: {message.content}\n" for message in messages) + "assistant:"
    return "".join(segment.text for segment in model.template.render(messages))


def _bytes(name: str, text: str) -> InferInput:
    return _tensor(name, np.array([text.encode()], object), "BYTES")


def _tensor(name: str, values: Any, datatype: str) -> InferInput:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor
