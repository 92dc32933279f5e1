"""What happens to the fields of a body that Orchestra does not use itself: lists for OpenAI, vLLM, llama.cpp.

A field that changes the answer is never ignored silently. A model behind an upstream gets every field
unchanged. A local model gets none: a field that would change its answer (`MODEL_FIELDS`) is refused by name,
unless its value is neutral; a field that no response can express (`REFUSED`) is refused for every model.
Harmless fields (`HARMLESS`) and unknown fields are dropped, and the response lists the unknown ones in its
notes.

A field that local models come to support moves from these lists to the body (`actors.gateway.bodies`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestration.errors import InvalidRequest

UPSTREAM = {"backend": "openai"}
"""The label that every node with an upstream has: see `orchestration.placement`."""
LIKENESS = 0.8
"""Minimum similarity, of 1, at which an unknown field counts as a misspelt one."""
MAX_NAMED = 20
"""Maximum unknown fields that a note lists, each with up to 60 characters."""

_OPENAI = """user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_options
    prompt_cache_retention prediction"""
_VLLM = """include_reasoning truncation_side media_io_kwargs mm_processor_kwargs priority request_id
    session_id return_token_offsets return_mm_kwargs cache_salt stream_interval guided_decoding_backend
    routed_experts_prompt_start"""
_LLAMA = """cache_prompt id_slot slot_id n_cache_reuse n_keep n_discard timings_per_token return_progress
    sse_ping_interval backend_sampling parse_tool_calls reasoning_format dynatemp_exponent dry_base
    dry_allowed_length dry_penalty_last_n dry_sequence_breakers xtc_threshold mirostat_tau mirostat_eta
    adaptive_decay reasoning_budget_start_tag reasoning_budget_end_tag reasoning_budget_message
    reasoning_budget_arm_immediately speculative.n_min speculative.n_max speculative.p_min speculative.type
    speculative.ngram_size_n speculative.ngram_size_m speculative.ngram_m_hits"""
HARMLESS = frozenset(f"{_OPENAI} {_VLLM} {_LLAMA}".split())
"""Fields that change no answer: who asks, where and how the answer is computed, and details of other fields
that are refused themselves."""

MODEL_FIELDS: dict[str, tuple[Any, ...]] = {
    # OpenAI
    "reasoning_effort": ("none", "default"),
    "verbosity": ("medium",),
    "modalities": (["text"],),
    "web_search_options": (),
    "moderation": (),
    "suffix": ("",),
    "best_of": (1,),
    # vLLM
    "thinking_token_budget": (-1,),
    "use_beam_search": (False,),
    "watermarking": (False,),
    "length_penalty": (1,),
    "early_stopping": (False,),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "logprob_token_ids": ([],),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "add_special_tokens": (False, True),  # the model says which of them is right
    "documents": ([],),
    "chat_template": (),
    "chat_template_kwargs": ({}, {"enable_thinking": False}, {"thinking": False}),
    "guided_whitespace_pattern": (),
    "logits_processors": ([],),
    "prompt_embeds": ([],),
    "return_tokens_as_token_ids": (False,),
    "kv_transfer_params": ({},),
    "ec_transfer_params": ({},),
    "vllm_xargs": ({},),
    "repetition_detection": (),
    # vLLM and llama.cpp, embeddings
    "normalize": (True,),
    "use_activation": (True,),
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
    "embd_normalize": (2,),
    # llama.cpp
    "dynatemp_range": (0,),
    "typical_p": (1,),
    "top_n_sigma": (-1, 0),
    "xtc_probability": (0,),
    "repeat_last_n": (-1,),
    "dry_multiplier": (0,),
    "mirostat": (0,),
    "adaptive_target": (-1,),
    "min_keep": (0,),
    "n_indent": (0,),
    "n_probs": (0,),
    "post_sampling_probs": (False,),
    "samplers": (),
    "t_max_predict_ms": (0, -1),
    "lora": ([],),
    "grammar_lazy": (False,),
    "grammar_triggers": ([],),
    "preserved_tokens": ([],),
    "chat_format": (0,),
    "chat_parser": ("",),
    "thinking_forced_open": (False,),
    "reasoning_budget_tokens": (-1,),
    "reasoning_in_content": (False,),
    # other servers of the API
    "enable_thinking": (False,),
    "thinking": ({"type": "disabled"},),
    "reasoning": ({},),
    "top_a": (0,),
    "random_seed": (),
    "safe_prompt": (False,),
    "max_new_tokens": (),
    "input_type": (),
    # other servers' names of system messages, `stop`, `response_format` and `reasoning_effort`
    "system": ("",),
    "stop_sequences": ([],),
    "format": ("",),
    "think": (False,),
}
"""Fields that an upstream may know and a local model does not, with the values that change nothing."""

OTHER_ROUTE_FIELDS: dict[str, tuple[Any, ...]] = {
    "messages": ([],),
    "prompt": ("",),
    "max_completion_tokens": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
}
"""Fields of another path than the body's, with neutral values: a local model refuses them there."""

REFUSED: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "functions": ("functions are not supported: use tools", ([],)),
    "function_call": ("functions are not supported: use tool_choice", ("none", "auto")),
    "audio": ("audio is not supported: answers are text", ({},)),
    "n_cmpl": ("only one answer per request is supported", (1,)),
    "prompt_logprobs": ("the log probabilities of a prompt are not supported", (0,)),
    "return_token_ids": ("token ids are not supported: answers are text", (False,)),
    "return_tokens": ("token ids are not supported: answers are text", (False,)),
    "return_prompt_text": ("the rendered prompt is not returned", (False,)),
    "response_fields": ("the fields of a response cannot be chosen", ([],)),
}
"""Fields that no response of Orchestra can express, for any model: the reason, and the neutral values."""

SAMPLING_FIELDS: dict[str, tuple[Any, ...]] = {
    "ignore_eos": (False,),
    "logit_bias": ({}, []),
    "min_p": (0,),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "truncate_prompt_tokens": (-1,),
}
"""Fields of `Sampling` that a local model follows and an upstream gets unchanged, with neutral values."""

OPTIONS: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "echo": (False,),
}
"""Fields that the gateway itself follows for a local model (`Fields.options`), with neutral values."""

ALIASES: Mapping[str, str] = {"repeat_penalty": "repetition_penalty", "n_predict": "max_tokens"}
"""llama.cpp's names of fields that have another name here."""
_BOOLEAN = TypeAdapter(bool)
_UNLIMITED = ("n_predict", -1)


class Upstreams(StrEnum):
    """Which of the nodes that may answer have an upstream. `SOME` also if that is not known now."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The sorted fields of one body: `extra` is sent with the work, `labels` exclude nodes that would ignore
    it, `sampling` is for local models, `options` has the fields of `OPTIONS` that are not neutral, and
    `notes` are for the caller."""

    extra: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    options: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


NO_FIELDS = Fields()


def sort_fields(extra: Mapping[str, Any], upstreams: Upstreams, *, model: str, own: Iterable[str]) -> Fields:
    """Sort the fields of a body. `own` has the names of the fields that the body uses itself. Raises
    `InvalidRequest` naming a field that would have to be ignored."""
    for name in extra.keys() & REFUSED.keys():
        why, neutral = REFUSED[name]
        if not _is_one_of(extra[name], neutral):
            raise InvalidRequest(f"{name}: {why}", param=name)
    carried = {name: value for name, value in extra.items() if name not in REFUSED}
    if upstreams is not Upstreams.NONE:
        telling = any(_needs_upstream(name, value) for name, value in carried.items())
        return Fields(extra=carried, labels=UPSTREAM if telling else {})
    sampling = {
        ALIASES[name]: carried[name] for name in carried.keys() & ALIASES.keys() if _has_limit(name, carried)
    }
    sampling |= {name: carried[name] for name in _non_neutral(carried, SAMPLING_FIELDS)}
    options = frozenset(_non_neutral(_booleans(carried), OPTIONS))
    for name in _non_neutral(carried, MODEL_FIELDS):
        raise InvalidRequest(
            f"{name}: not supported by {model!r}; a model behind an upstream may support it", param=name
        )
    for name in _non_neutral(carried, OTHER_ROUTE_FIELDS):
        raise InvalidRequest(f"{name}: not a field of this route, but of another one under /v1", param=name)
    unknown = [name for name, value in carried.items() if value is not None and not _is_known(name)]
    for name in unknown:
        meant = get_close_matches(name, own, 1, LIKENESS)
        if meant:
            raise InvalidRequest(f"{name[:60]}: no such field; did you mean {meant[0]!r}?", param=name[:60])
    return Fields(sampling=sampling, options=options, notes=(_ignored_note(unknown),) if unknown else ())


def _booleans(carried: Mapping[str, Any]) -> dict[str, bool]:
    """Return the options that have a value. Raises `InvalidRequest` for one that is not a boolean."""
    booleans = {}
    for name in OPTIONS.keys() & carried.keys():
        if carried[name] is not None:
            try:
                booleans[name] = _BOOLEAN.validate_python(carried[name])
            except ValidationError:
                raise InvalidRequest(f"{name}: must be true or false", param=name) from None
    return booleans


def _non_neutral(carried: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Return the fields in `known` whose values are not neutral."""
    return [name for name, value in carried.items() if name in known and not _is_one_of(value, known[name])]


def _needs_upstream(name: str, value: Any) -> bool:
    """Whether a node without an upstream would ignore the field."""
    return name not in HARMLESS and not _is_one_of(
        value, (MODEL_FIELDS | SAMPLING_FIELDS | OPTIONS).get(name, ())
    )


def _has_limit(name: str, carried: Mapping[str, Any]) -> bool:
    return carried[name] is not None and (name, carried[name]) != _UNLIMITED


def _is_known(name: str) -> bool:
    return any(
        name in known
        for known in (HARMLESS, MODEL_FIELDS, SAMPLING_FIELDS, OPTIONS, ALIASES, OTHER_ROUTE_FIELDS)
    )


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    return value is None or value in neutral


def _ignored_note(names: list[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:MAX_NAMED])
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"ignored, because they are unknown here: {shown}{more}"
