"""Multiple choice: the options that a question offers, and which of them an answer takes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestration.patterns.consensus.final import exact, final_answer

_OPTION = re.compile(r"(?:^|(?<=[\s,;]))\(?([A-Ha-h])[).:]\s+(?=\S)", re.MULTILINE)
_PAIRS = (("yes", "no"), ("true", "false"))
_MAX_OPTION_CHARS = 300


def options_of(question: str) -> dict[str, str]:
    """The options by their letters, or by themselves for `yes or no`; empty when there are none."""
    found: dict[str, tuple[int, int]] = {}
    for match in _OPTION.finditer(question):
        letter = match[1].upper()
        if letter == chr(ord("A") + len(found)):  # in their order, so that a stray `a)` is none
            found[letter] = match.span()
    if len(found) >= 2:
        ends = [*(start for start, _ in found.values()), len(question)][1:]
        return {
            letter: question[begin:end].split("\n")[0].strip(" ,;\n")[:_MAX_OPTION_CHARS]
            for (letter, (_, begin)), end in zip(found.items(), ends, strict=True)
        }
    for pair in _PAIRS:
        if re.search(rf"\b{pair[0]}\s+or\s+{pair[1]}\b", question, re.IGNORECASE):
            return {each: each for each in pair}
    return {}


def choice_of(text: str, options: Mapping[str, str]) -> str | None:
    """The option that an answer takes; None when that is not clear, as in `A) Mars` where Mars is C."""
    for said in (final_answer(text), text):
        if said is None:
            continue
        named, worded = _named(said, options), _worded(said, options)
        if named or worded:
            return named or worded if None in (named, worded) or named == worded else None
    return None


def _named(said: str, options: Mapping[str, str]) -> str | None:
    """By its letter: `B`, `(B)`, `B.`, `**B**: …`, `option B`; or the only letter in brackets."""
    letters = "".join(letter for letter in options if len(letter) == 1)
    if not letters:
        return None
    at_start = re.match(rf"[\W_]*?\(?([{letters}])(?:[).:*]|\W*$)", said, re.IGNORECASE)
    if at_start:
        return at_start[1].upper()
    called = re.findall(rf"\b(?:option|choice|letter|answer)\s+\(?([{letters}])\b", said, re.IGNORECASE)
    called += re.findall(rf"\bis\W+([{letters}])\b(?!\s+\w)", said)
    bracketed = called or re.findall(rf"\(([{letters}])\)", said)
    taken = {letter.upper() for letter in bracketed}
    return taken.pop() if len(taken) == 1 else None


def _worded(said: str, options: Mapping[str, str]) -> str | None:
    """By its words: the only option whose words are in the answer, or the longest that holds the others."""
    plain = f" {exact(said) or ''} "
    if plain.strip() in ("yes", "no"):  # `exact` makes one of `Yes, because …`
        return next((letter for letter, words in options.items() if exact(words) == plain.strip()), None)
    held = {
        letter: words
        for letter, option in options.items()
        if (words := exact(option)) is not None and f" {words} " in plain
    }
    longest = max(held.values(), key=len, default="")
    if any(words not in longest for words in held.values()):
        return None
    return next((letter for letter, words in held.items() if words == longest), None)
