"""Sources in the prompt of an agent. They are quoted, because text in them may look like instructions.

A document may be poisoned: it may say "ignore all instructions", close a quote, or look like the next turn of
the conversation. So every line of it begins with a mark that it cannot take away, it stands in the user's
message and never in the system's, and what chat templates take for the end of a turn is broken up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestration.messages import ChatMessage, Sampling
from orchestration.patterns.clipping import clip, estimate_tokens
from orchestration.patterns.prompt_texts import QUOTED

HEAD = QUOTED
ASK = "Using the texts, answer: "
"""Small models lose the question over longer words on sources and citations: of 17 questions SmolLM2-135M
answers 10 with these, and 4 where it is asked to cite. Citations are added afterwards."""
PLAIN = Sampling(repetition_penalty=1.0)
"""A penalty on repetition keeps a model from saying what a text says: with 1.1, 4 of the 17."""
LABEL_CHARACTERS = 100
MIN_SOURCE_TOKENS = 24
"""A source that would be clipped to less is left out."""
_TURNS = re.compile(r"<(?=\||/?s>|/?(?:start|end)_of_turn>)|\[(?=/?INST\])")
"""Begins what templates of common models take for the end of a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A piece of material. `n` is what it is cited by, `document` where it is from, `label` what it is
    called; `score` is how well it fits the question, from 0 to 1."""

    n: int
    document: str
    label: str
    text: str
    score: float


def quoted(sources: Sequence[Source]) -> str:
    """The sources as a prompt has them."""
    return "\n\n".join(f"[{each.n}] {_one_line(each.label)}\n{_quote(each.text)}" for each in sources)


def before(messages: Sequence[ChatMessage], sources: Sequence[Source]) -> tuple[ChatMessage, ...]:
    """The conversation with the sources before its last message, the question."""
    if not sources or not messages:
        return tuple(messages)
    *earlier, last = messages
    content = f"{HEAD}\n\n{quoted(sources)}\n\n{ASK}{last.content}"
    return (*earlier, last.model_copy(update={"content": content}))


def fitting(sources: Sequence[Source], tokens: int) -> list[Source]:
    """As many of the sources, from the first on, as have about `tokens` tokens together; the last is
    clipped."""
    fitted: list[Source] = []
    left = float(tokens)
    for each in sources:
        if left < MIN_SOURCE_TOKENS:
            break
        text = clip(each.text, int(left))
        fitted.append(replace(each, text=text))
        left -= estimate_tokens(text)
    return fitted


def _quote(text: str) -> str:
    """Whatever `splitlines` takes for the end of a line is one, so that no kind of it goes unmarked."""
    lines = _TURNS.sub(r"\g<0> ", text).splitlines()
    return "\n".join(f"> {_printable(line)}".rstrip() for line in lines if line.strip())


def _one_line(text: str) -> str:
    return _printable(_TURNS.sub(r"\g<0> ", " ".join(text.split())))[:LABEL_CHARACTERS]


def _printable(line: str) -> str:
    """Without what is not seen, such as marks that turn the direction of writing."""
    return "".join(char for char in line if char == "\t" or unicodedata.category(char)[0] != "C")
