"""Parses model names: family, generation, size, and the words that distinguish variants.

Names come from providers, hubs and files in many spellings: "meta-llama/Llama-3.1-70B-Instruct-AWQ",
"llama3.1:70b" and "us.meta.llama3-1-70b-instruct-v1:0" are one model. Models of one family make the same
mistakes more often than others, and copies of one model nearly always (Kim et al., "Correlated Errors in
Large Language Models", 2025), so further votes of a family or of a copy are discounted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

MAX_CHARACTERS = 300
"""Characters of a name that are parsed; names come from nodes and callers."""
MAX_CACHED_NAMES = 4_096
"""Parsed names that are cached."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPEN = {
    "llama": "llama codellama tinyllama openllama",
    "qwen": "qwen qwq qvq codeqwen",
    "mistral": "mistral mixtral ministral codestral magistral mathstral devstral pixtral voxtral",
    "gemma": "gemma codegemma recurrentgemma medgemma shieldgemma paligemma",
    "phi": "phi",
    "yi": "yi",
    "deepseek": "deepseek",
    "falcon": "falcon",
    "granite": "granite",
    "olmo": "olmo olmoe",
    "smollm": "smollm smolvlm",
    "starcoder": "starcoder",
    "nemotron": "nemotron minitron",
    "internlm": "internlm",
    "baichuan": "baichuan",
    "glm": "glm chatglm",
    "jamba": "jamba",
    "dbrx": "dbrx",
    "exaone": "exaone",
    "stablelm": "stablelm",
    "mpt": "mpt",
    "bloom": "bloom bloomz",
    "pythia": "pythia",
    "ernie": "ernie",
    "hunyuan": "hunyuan",
    "lfm": "lfm",
}
"""Families with open weights, and the names of their lines. Others build on these, so that a line is looked
for anywhere in a name ("dolphin-2.9-llama3-8b" has the errors of Llama 3)."""
_OWN = {
    "vicuna": "vicuna",
    "wizardlm": "wizardlm wizardmath wizardcoder wizard",
    "zephyr": "zephyr",
    "openchat": "openchat",
    "orca": "orca",
    "starling": "starling",
    "athene": "athene",
    "solar": "solar",
    "command": "command aya",
    "reka": "reka",
    "kimi": "kimi moonlight",
    "minimax": "minimax abab",
    "seed": "doubao seed",
    "step": "step",
}
"""Families whose line is the first word of a name. Elsewhere in a name these words mean nothing ("orca",
"solar" and "command" are common words)."""
_CLOSED = {
    "gpt": "gpt chatgpt o davinci curie babbage",
    "claude": "claude",
    "gemini": "gemini",
    "nova": "nova",
    "grok": "grok",
    "palm": "palm bison",
}
"""Families that only their maker offers: a name begins with the line, a generation or a tier follows, and no
size, except where sizes were published."""

_PLAIN = {
    line: family
    for table in (_OPEN, _OWN, _CLOSED)
    for family, lines in table.items()
    for line in lines.split()
}
_ANYWHERE = _words(" ".join(_OPEN.values()))
_COMMON = _words("phi yi bloom falcon granite pythia ernie lfm")
"""Lines that are also common words; only a size, a generation or a tier next to them makes a model name."""
CLOSED_FAMILIES = frozenset(_CLOSED)
_CLOSED_LINES = _words(" ".join(_CLOSED.values()))

TIERS = {
    "nano": -2.0, "micro": -2.0, "tiny": -2.0, "xs": -2.0, "edge": -1.5,
    "mini": -1.0, "small": -1.0, "lite": -1.0, "light": -1.0, "flash": -1.0, "haiku": -1.0, "instant": -1.0,
    "fast": -0.5, "air": -0.5, "scout": -0.5, "core": 0.0, "medium": 0.0, "sonnet": 0.0, "turbo": 0.0,
    "plus": 0.5, "maverick": 0.5, "pro": 0.5, "large": 0.5, "premier": 0.75, "opus": 0.75,
    "ultra": 1.0, "max": 1.0, "huge": 1.0, "heavy": 1.0, "xl": 1.0, "behemoth": 1.0,
}  # fmt: skip
"""Words by which providers rank their models; 0 is the middle of a line."""
_MARKS = {
    "thinking", "reasoning", "reasoner", "think", "coder", "code", "codex", "math", "distill", "verification",
    "base", "vision", "vl", "omni", "moe", "r", "r7b", "a", "nemo", "davinci", "oss", "speciale",
}  # fmt: skip
"""Words, besides tiers, that distinguish models of one generation."""

_VENDORS = _words(
    "meta c4ai databricks ibm amazon nvidia openai anthropic google azure cohere ai21 hf unsloth thebloke "
    "open mistralai microsoft tiiuae xai moonshot ai bedrock vertex lmsys zhipu thudm berkeley "
    "nousresearch snowflake allenai huggingfacetb"
)
_COPIES = _words(
    "instruct chat it hf latest preview exp experimental model fp8 fp16 bf16 fp32 f16 f32 fp4 int4 int8 "
    "awq gptq gguf ggml ggmlv3 mlx onnx exl2 bnb nf4 mxfp4 nvfp4 4bit 8bit 6bit 3bit 5bit w4a16 w8a8 "
    "w8a16 w4a8 imatrix imat marlin quantized quant dynamic autoround ud qat cuda cpu genai free nitro "
    "floor extended beta exacto batch versatile reference maas tee hi release official quarot dwq eetq "
    "hqq gs128 g128 128g trtllm trt abliterated text sharded web mlc lm llm"
)
"""Words that distinguish copies of one model: precision, file format, host, and "chat"."""
_DISTINCTIVE_COPIES = _words("model lm llm text web hi release cpu cuda reference official beta free")
"""Words of `_COPIES` that may distinguish models of unknown families."""
_REPLACEMENTS = {
    "chatgpt": "gpt",
    "chatglm": "glm",
    "mistralai": "mistral",
    "openllama": "llama",
    "codeqwen": "qwen-coder",
}
_IMITATIONS = _words(
    "killer slayer beater like style clone lookalike distill distilled alpaca vicuna neo neox j sw3 all x "
    "codec emulator mimic imitation fake mock"
)
"""Words that, after the line of a closed family, mean a model of another maker that is compared to it."""
_SIZED_CLOSED: set[tuple[str | int, ...]] = {
    ("gpt", 2),
    ("gpt", 3),
    ("grok", 1),
    ("grok", 2),
    ("gemini", 1),
    ("davinci",),
}
"""Generations of closed families whose sizes are published."""

_PROVIDER = re.compile(
    r"^(?:(?:us|eu|apac|ap|jp|au|ca|global|us-gov)\.)?(?:anthropic|meta|amazon|cohere|ai21|mistral|deepseek|qwen|openai|"
    r"google|nvidia|minimax|moonshot|moonshotai|writer|zai|luma)\.(?=[a-z])"
)
_QUANTISATION = re.compile(
    r"(?<![a-z0-9])(?:i?q[2-8](?:[_-](?:k|[01]|xxs|xs|s|m|nl))?(?:[_-](?:xxs|xs|s|m|l|xl|p|4[_-]4|4[_-]8|8[_-]8))?"
    r"|tq[12][_-]0|q4f(?:16|32)(?:_1)?|\d(?:\.\d+)?[ _-]?bpw|\d{5}-of-\d{5})(?![a-z0-9])"
)
_DATES = re.compile(
    r"(?<!\d)20[1-3]\d-?(?:0[1-9]|1[0-2])-?(?:[0-2]\d|3[01])(?!\d)|(?<![\d.])20[2-3]\d-(?:0[1-9]|1[0-2])(?!\d)"
    r"|(?<![\d.])(?:0[1-9]|1[0-2])-20[2-3]\d(?!\d)"
)
_SIZE = re.compile(r"(?:(\d{1,3})x)?(\d+(?:\.\d+)?)(b|t)|(\d{2,4})m")
_ACTIVE = re.compile(r"a(\d+(?:\.\d+)?)b?")
_EFFECTIVE = re.compile(r"e(\d+(?:\.\d+)?)b")
_VERSION = re.compile(r"[vkmrx]?(\d{1,2}(?:\.\d{1,2})*)")
_CONTEXT = re.compile(r"\d{1,4}k|\d{1,2}m|\d{4,}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """The parts of a model name."""

    family: str
    """"llama"; for an unknown name, the name without size, date and quantisation."""
    line: str = ""
    """"llama", "qwq", "o" (of o1), "gpt-oss"; empty for an unknown name."""
    version: tuple[int, ...] = ()
    """The generation, such as (3, 1); empty if the name has none."""
    size: float = 0.0
    """Billions of parameters, including all experts of a mixture; 0 if the name has no size."""
    active: float = 0.0
    """Billions of parameters that are active per token of a mixture of experts; 0 if the name does not
    say."""
    marks: frozenset[str] = frozenset()
    """The other words that distinguish it from its siblings: "mini", "coder"."""

    @property
    def base(self) -> str:
        version = ".".join(map(str, self.version))
        size = f"{self.size:g}b" if self.size else ""
        return " ".join(
            part for part in (self.line or self.family, version, size, *sorted(self.marks)) if part
        )


def family_of(model: str) -> str:
    """Return the family whose errors `model` shares: "llama", "gpt", "claude". An unknown model is its own
    family."""
    return parse_name(model).family


def base_name(model: str) -> str:
    """Return one name for all copies of a model, without provider, node, quantisation and date."""
    return _base(model[:MAX_CHARACTERS])


@lru_cache(maxsize=MAX_CACHED_NAMES)
def _base(model: str) -> str:
    return _parsed(model).base


def same_model(one: str, other: str) -> bool:
    """Whether two names mean copies of one model."""
    return base_name(one) == base_name(other)


def tier_of(marks: frozenset[str]) -> float:
    """Return the rank of a model among its siblings by the tier words in its name; 0 is the middle."""
    return sum(TIERS.get(mark, 0.0) for mark in marks)


def parse_name(model: str) -> ModelName:
    """Parse a model name. Any text is accepted."""
    return _parsed(model[:MAX_CHARACTERS])


@lru_cache(maxsize=MAX_CACHED_NAMES)
def _parsed(model: str) -> ModelName:
    text, tuned = _without_host(model)
    tokens, size, active = _sized(_tokens(text))
    at = _line_at(tokens, size)
    if at is None:
        plain = "-".join(token for token in tokens if token not in _COPIES - _DISTINCTIVE_COPIES)
        family = plain if plain and plain not in _PLAIN else model.strip().lower()
        return ModelName(family, size=size, active=active, marks=frozenset(tuned))
    before, line, after = tokens[:at], tokens[at], tokens[at + 1 :]
    family = _PLAIN[line]
    version, rest = _version(line, after)
    marks = {token for token in (*before, *rest) if not _CONTEXT.fullmatch(token)}
    if size and family not in _CLOSED:
        marks -= {"turbo", "instant", "lite", "fast"}  # hosts use these words for copies of open weights
    if "oss" in marks:
        line, marks = "gpt-oss", marks - {"oss"}
    if line == "deepseek" and any(re.fullmatch(r"r\d", word) for word in after):
        line = "deepseek-r"
    numbers = {mark for mark in marks if re.fullmatch(r"v?\d+(\.\d+)*", mark)}
    marks = marks - numbers - _COPIES - {line, family}
    if line == "deepseek-r" and size:
        marks -= {"distill", "qwen", "llama"}  # hubs name distilled models by size alone
    return ModelName(family, line, version, size, active, frozenset(marks | tuned))


def _without_host(model: str) -> tuple[str, set[str]]:
    """Return the name without node, provider and tag, and the marks of a fine-tuned copy."""
    text = model.strip().lower()
    tuned: set[str] = set()
    if text.startswith("ft:") and len(parts := text.split(":")) > 1:
        text, tuned = parts[1], {"ft:" + ":".join(parts[2:])}
    if "@" in text[1:]:
        text = text[: text.index("@", 1)]
    text = text.rstrip("/").rsplit("/", 1)[-1]
    text = _PROVIDER.sub("", text)
    text = re.sub(r"\bv0:(\d)$", r"v0.\1", text)
    text = re.sub(r"-v\d+(?::\d+)+(?::\d+k)?$", "", text)
    return text, tuned


def _tokens(text: str) -> list[str]:
    text = _DATES.sub("", _QUANTISATION.sub("", text))
    text = re.sub(r"(?<=\d)p(?=\d)", ".", text)  # "v3p1", "1p5b"
    text = re.sub(r"\.(?:gguf|bin|onnx|safetensors)$", "", text)
    text = re.sub(r"(?<=\d)b(\d)(?![\d])$", r".\1b", text)  # "bloom-7b1"
    tokens: list[str] = []
    for word in re.split(r"[\s_:,()\[\]+/-]+|(?<![0-9])\.|\.(?![0-9])", text):
        glued = re.fullmatch(r"([a-z]+?)(\d[\d.]*)(o?)", word)
        if glued and glued[1] in _PLAIN:
            tokens += [glued[1], glued[2] + glued[3]]
        elif re.fullmatch(r"\dn", word):  # "gemma-3n"
            tokens += [word[0], "n"]
        elif word:
            tokens.append(word)
    while len(tokens) > 1 and tokens[0] in _VENDORS:
        tokens.pop(0)
    if len(tokens) > 2 and tokens[0] in {"deepseek", "qwen", "minimax"} and tokens[1] == "ai":
        del tokens[:2]
    if (
        tokens
        and tokens[0] in {"text", "code"}
        and tokens[1:2] in (["davinci"], ["curie"], ["babbage"], ["bison"])
    ):
        tokens.pop(0)
    replaced = [part for token in tokens for part in _REPLACEMENTS.get(token, token).split("-")]
    return [
        token
        for at, token in enumerate(replaced)
        if not token.isalpha() or token not in replaced[max(0, at - 1) : at]
    ]


def _sized(tokens: list[str]) -> tuple[list[str], float, float]:
    """Return the tokens without those of the size, then all and active parameters in billions (0 if
    unknown)."""
    total = active = 0.0
    rest: list[str] = []
    for token in tokens:
        if match := _SIZE.fullmatch(token):
            copies, number, unit, millions = match.groups()
            one = float(millions) / 1000 if millions else float(number) * (1000 if unit == "t" else 1)
            if copies:  # experts share their attention: about 5/6 of the product, two of them active
                one, active = one * float(copies) * 0.85, one * 1.85
            total = max(total, one)
        elif match := _EFFECTIVE.fullmatch(token):
            total = float(match[1])
        elif total and (match := _ACTIVE.fullmatch(token)):
            active = float(match[1])
        elif total and (match := re.fullmatch(r"(\d{1,3})e", token)):  # "17b-16e": active ones and experts
            total, active = total * max(1.0, float(match[1]) ** 0.67), total
        else:
            rest.append(token)
    return rest, float(f"{total:.3g}"), float(f"{active:.3g}")


def _line_at(tokens: list[str], size: float) -> int | None:
    """Return the index of the token that names a known line, or None for an unknown name."""
    if not tokens:
        return None
    first, after = tokens[0], tokens[1:]
    if first in _CLOSED_LINES:
        if _IMITATIONS & set(after):
            return None
        version = _version(first, after)[0]
        known = bool(version) or first in {"davinci", "curie", "babbage", "bison", "palm"}
        if first in {"claude", "gemini"}:
            known = known or not after or after[0] in TIERS
        if first == "nova":
            known = any(word in TIERS for word in after)
        if first == "gpt":
            known = known or after[:1] == ["oss"]
        if size and "oss" not in after and (first, *version[:1]) not in _SIZED_CLOSED:
            return None
        return 0 if known else None
    is_marked = bool(size) or any(
        _VERSION.fullmatch(word) or word in TIERS or word in _MARKS for word in after
    )
    if first in _PLAIN and (is_marked or first in _ANYWHERE - _COMMON):
        return 0
    lines = _ANYWHERE if is_marked else _ANYWHERE - _COMMON
    return next((at for at, token in enumerate(tokens) if token in lines), None)


def _version(line: str, after: list[str]) -> tuple[tuple[int, ...], list[str]]:
    """Return the generation that follows a line, and the other words."""
    for at, word in enumerate(after):
        if word in {"4o", "o"} and line == "gpt":
            return (4, 0, 1), [*after[:at], *after[at + 1 :]]
        match = _VERSION.fullmatch(word)
        if match is None:
            continue
        parts = [int(part) for part in match[1].split(".")]
        used = at + 1
        if line == "gpt" and parts == [35]:
            parts = [3, 5]
        elif len(parts) == 1 and word != "00" and re.fullmatch(r"\d", (after[used : used + 1] or [""])[0]):
            parts.append(int(after[used]))
            used += 1
        if word.startswith("v0") and parts[0] in {0, 1} and "." not in word:  # "v01"
            parts = [1]
        while len(parts) > 1 and parts[-1] == 0:
            parts.pop()
        first = parts in ([0, 1], [1]) and word[0] == "v"
        return (() if first else tuple(parts)), [*after[:at], *after[used:]]
    return (), after
