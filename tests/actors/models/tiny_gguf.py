"""Llama files of a few hundred kilobytes with random weights, written by the gguf package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from actors.models.tokenizer import byte_alphabet

Type = GGMLQuantizationType

CRAFTED = frozenset({Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.Q3_K, Type.IQ4_NL})
"""Types that the gguf package reads but does not write: their blocks are made up here."""

_SCALE_PLACES = {
    Type.Q4_K: (0, 2),
    Type.Q5_K: (0, 2),
    Type.Q6_K: (208,),
    Type.Q3_K: (108,),
    Type.IQ4_NL: (0,),
}
_SCALES = {Type.Q4_K: 2e-4, Type.Q5_K: 1e-4, Type.Q6_K: 4e-5, Type.Q3_K: 1e-3, Type.IQ4_NL: 1e-3}

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """What to write. `types` overrides `type` for single tensors by the middle of their name; `tokenizer`
    is the metadata of a file whose tokens, types and merges are taken."""

    type: Type = Type.F32
    types: Mapping[str, Type] = field(default_factory=dict)
    architecture: str = "llama"
    layers: int = 2
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 512
    context: int = 128
    tied: bool = True
    rope_freqs: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    pre: str = "smollm"
    tokenizer: Mapping[str, Any] | None = None
    seed: int = 0
    tokens: tuple[str, ...] = ("ab", "abc")
    """The vocabulary's last."""
    template: str = ""
    part_tensors: int = 0
    """Tensors of each part, where the file is split."""


SHAPES = {
    "floats": Tiny(type=Type.F32),
    "untied_floats": Tiny(type=Type.F32, tied=False),
    "q4_1": Tiny(type=Type.Q4_1),
    "mqa_untied": Tiny(type=Type.Q8_0, tied=False, kv_heads=1),
    "mha_rope_freqs": Tiny(type=Type.Q5_0, rope_freqs=True, kv_heads=4),
    "mixture": Tiny(
        type=Type.Q4_K, types={"attn_v": Type.Q6_K, "ffn_up": Type.Q6_K, "token_embd": Type.Q6_K}
    ),
    "mixed_untied": Tiny(type=Type.Q4_1, types={"token_embd": Type.Q4_1, "output": Type.Q8_0}, tied=False),
}
"""One of each kind of llama that a runtime must serve."""


def write(path: Path, tiny: Tiny) -> Path:
    """Write `tiny` to `path`, or to parts beside it; gives the first file."""
    writer = GGUFWriter(path, tiny.architecture, split_max_tensors=tiny.part_tensors)
    writer.add_block_count(tiny.layers)
    writer.add_context_length(tiny.context)
    writer.add_embedding_length(tiny.hidden)
    writer.add_feed_forward_length(tiny.feed_forward)
    writer.add_head_count(tiny.heads)
    writer.add_head_count_kv(tiny.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    tokens = _add_tokenizer(writer, tiny)
    for key, value in tiny.metadata.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    for name, shape in _shapes(tiny, tokens).items():
        _add(writer, tiny, name, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if path.exists() else min(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))


def _add_tokenizer(writer: GGUFWriter, tiny: Tiny) -> int:
    """Gives the number of tokens."""
    tokens = [*SPECIALS, *byte_alphabet(), *tiny.tokens]
    types = [3] * len(SPECIALS) + [1] * (len(tokens) - len(SPECIALS))
    chosen = {
        "model": "gpt2",
        "pre": tiny.pre,
        "tokens": tokens,
        "token_type": types,
        "merges": ["a b", "ab c"],
        **{key.removeprefix("tokenizer.ggml."): value for key, value in (tiny.tokenizer or {}).items()},
    }
    tokens = chosen["tokens"]
    writer.add_tokenizer_model(chosen["model"])
    writer.add_token_list(tokens)
    writer.add_token_types(chosen["token_type"])
    if "scores" in chosen:
        writer.add_token_scores(chosen["scores"])
    else:
        writer.add_tokenizer_pre(tiny.pre)
        writer.add_token_merges(chosen["merges"])
    if tiny.template:
        writer.add_chat_template(tiny.template)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return len(tokens)


def _shapes(tiny: Tiny, vocabulary: int) -> dict[str, tuple[int, ...]]:
    width = tiny.hidden // tiny.heads
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, tiny.hidden)}
    for layer in range(tiny.layers):
        part = {
            "attn_norm": (tiny.hidden,),
            "attn_q": (tiny.heads * width, tiny.hidden),
            "attn_k": (tiny.kv_heads * width, tiny.hidden),
            "attn_v": (tiny.kv_heads * width, tiny.hidden),
            "attn_output": (tiny.hidden, tiny.heads * width),
            "ffn_norm": (tiny.hidden,),
            "ffn_gate": (tiny.feed_forward, tiny.hidden),
            "ffn_up": (tiny.feed_forward, tiny.hidden),
            "ffn_down": (tiny.hidden, tiny.feed_forward),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in part.items()}
    shapes["output_norm.weight"] = (tiny.hidden,)
    if not tiny.tied:
        shapes["output.weight"] = (vocabulary, tiny.hidden)
    if tiny.rope_freqs:
        shapes["rope_freqs.weight"] = (width // 2,)
    return shapes | dict.fromkeys(tiny.extra, (tiny.hidden,))


def _add(writer: GGUFWriter, tiny: Tiny, name: str, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng([tiny.seed, *name.encode()])
    if len(shape) == 1:
        writer.add_tensor(name, random.uniform(0.5, 1.5, shape).astype(np.float32))
        return
    middle = name.split(".")[-2]
    kind = tiny.types.get(middle, tiny.type)
    # The embedding is large so that tokens, not rounding, decide what the layers see.
    spread = 1.0 if middle == "token_embd" else 0.08
    writer.add_tensor(name, raw_rows(kind, shape, spread, random), raw_dtype=kind)


def raw_rows(kind: Type, shape: tuple[int, ...], spread: float, random: np.random.Generator) -> NDArray[Any]:
    """Random rows in GGML type `kind`, their values about `spread` large."""
    if kind not in CRAFTED:
        return quants.quantize((random.standard_normal(shape) * spread).astype(np.float32), kind)
    block, size = GGML_QUANT_SIZES[kind]
    raw = random.integers(0, 256, (shape[0], shape[1] // block, size), dtype=np.uint8)
    for place in _SCALE_PLACES[kind]:
        scale = np.float16(_SCALES[kind] * spread / 0.08 * (7.5 if place == 2 else 1))
        raw[..., place : place + 2] = np.frombuffer(scale.tobytes(), np.uint8)
    return raw.reshape(shape[0], -1)
