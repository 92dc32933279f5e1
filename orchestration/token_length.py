"""Estimates the tokens of a text without a tokenizer."""

from __future__ import annotations

from orchestration.messages import TextGeneration

ASCII_PER_TOKEN = 4.0
"""Characters of English prose. Code and mathematics have 2.5 to 3.5, which only a count can tell."""
OTHER_PER_TOKEN = 1.3
"""Characters beyond ASCII: Chinese has about 1 to 1.5 in the vocabularies of today, Cyrillic 2 to 3."""


MESSAGE_TOKENS = 4
"""Tokens of the template around each message of a chat."""


def likely_prompt(generation: TextGeneration) -> int:
    """The estimated tokens that a model reads: of the conversation or the prompt, and of the prefix."""
    texts = (*generation.texts, generation.prefix)
    read = sum(likely_tokens(text) + MESSAGE_TOKENS for text in texts if text)
    ids = len(generation.prompt_ids) if generation.kind == "completion" else 0
    return ids + round(read)


def likely_tokens(text: str) -> float:
    """The most likely number. For text that must fit, use `orchestration.patterns.clipping.estimate_tokens`,
    which estimates rather too many."""
    plain = len(text.encode("ascii", "ignore"))
    return plain / ASCII_PER_TOKEN + (len(text) - plain) / OTHER_PER_TOKEN
