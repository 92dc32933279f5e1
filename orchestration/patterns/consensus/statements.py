"""Finds the places of a text that name its answer, each with a strength."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from orchestration.patterns.consensus.fields import answer_fields

HEAD_CHARS = 4_000
TAIL_CHARS = 16_000
"""Characters of a longer text that are read, from its beginning and from its end, where answers stand."""
EXPLICIT = 0.8
"""Minimum strength of a place that says that it is the answer."""
NAMED = 0.88
"""Minimum strength of a place that uses the word answer, and not just result or choice."""
_MAX_PLACES = 32
"""Maximum places of one form that are read, from the end."""
_MAX_CHARS = 1_000

_NOUN = (
    r"answer|antwort(?!en)|r[ée]ponse|respuesta|risposta|resposta|antwoord|svar(?:et)?|odpowied[źz]|cevap|"
    r"lösung|ergebnis|r[ée]sultat|resultado|risultato|solution|result|option|choice|opción|opción correcta|"
    r"opzione|opção|ответ|conclusion"
)
_COPULA = (
    r"\bis\b|\bwould be\b|\bwill be\b|\bshould be\b|\bmust be\b|\bis[ :]+therefore\b|\bist\b|\blautet\b|"
    r"\best\b|"
    r"\bes\b|\bè\b|\bé\b|\bsaria\b|\bluidt\b|\bär\b|\bto\b(?= [A-Z(\d])|[:=：→]|->|—"
)
_MARKER = re.compile(
    rf"\b(?P<noun>{_NOUN})\b(?P<gap>[^\n.:;=：?]{{0,80}}?)[^\w\n]{{0,4}}(?:{_COPULA})[ \t]*:?", re.IGNORECASE
)
_LEAD = re.compile(
    r"(?:\b(?:final|correct|right|best|closest|my|our|the|die|das|la|il|a|het|el|le|richtige|korrekte|bonne|"
    r"correcta|juiste)\s+)+\Z",
    re.IGNORECASE,
)
_UNASKED = re.compile(r"\b(?:to|to the|can|cannot|please|incorrect|wrong)\s+\Z", re.IGNORECASE)
_LOOK_BACK = 48
_EASTERN = re.compile(r"(?:答案|答え|正解|回答|정답|답)\s*(?:是|为|為|は|은|[:：])+\s*")
_LINE = re.compile(
    r"^[^\w\n]{0,8}(?:(?:final|correct|my)\s+)?(?:answer|ans|action|antwort|r[ée]ponse|respuesta|risposta|"
    r"resposta|"
    r"antwoord)\b[^\w\n({\[\\$]{0,6}(?=[\w({\[\\$\n])",
    re.IGNORECASE | re.MULTILINE,
)
_WEAK = re.compile(
    r"lösung|ergebnis|r[ée]sultat|resultado|risultato|solution|result|option|choice|opción.*|opzione|opção|"
    r"conclusion",
    re.IGNORECASE,
)
"""Words that a text also uses where it does not come to its answer."""
_KEY = re.compile(r"[\"'”]\s*:")
_QUOTES = ('"', "'", "“", "”")
_ASIDE = re.compile(r"\s*(?:as|in|with|for|by|without)\b", re.IGNORECASE)
_LISTS = re.compile(r"\b(?:choices|options|answers)\b", re.IGNORECASE)
_HASHES = re.compile(r"####[ \t]*")
_A_LINE = re.compile(r"^A:[ \t]*(?=\S)", re.MULTILINE)
_TAG = re.compile(r"<\s*(answer|final[_ ]?answer|result|choice|solution)\s*>", re.IGNORECASE)
_CALL = re.compile(
    r"\b(?:answer|final_answer|choose|select|submit)\(\s*[\"'“]?([^\"'”)\n]{1,200})[\"'”]?\s*\)",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\f?boxed\s*\{")
_BOXED_BARE = re.compile(r"\\boxed\s+(-?[\w.,]+)")
_SENTENCE_END = re.compile(r"(?<!\b[A-Za-z])(?<!\b(?:St|Dr|Mr|vs))[.!?。](?=[\s\"”)*]|$)|\n")
_OPENED = (("\\[", "\\]"), ("$$", "$$"), ("\\(", "\\)"))
WITHDRAWAL = re.compile(
    r"(?:^|(?<=[.!?\n)…—;,]\s)|(?<=[.!?…])|(?<=\n))\W{0,3}(?:but\s+)?(?:"
    r"wait\b|no\s?[,:]|hold on\b|correction\b|scratch that\b|sorry\b|oops\b|on second thought\b|actually\b|"
    r"i made an? (?:mistake|error)\b|(?:that|this)(?:'s|’s| is| was) (?:wrong|not right|incorrect|"
    r"a mistake)\b|"
    r"let me (?:correct|reconsider|rethink)\b|on reflection\b|"
    r"rather\s?[,:]|moment\b|halt\b|nein\s?[,:]|korrektur\b|attendez\b|non\s?[,:]|pardon\b|"
    r"espera\b|perd[óo]n\b|aspetta\b|anzi\b|espere\b|wacht\b|nee\s?[,:]"
    r")[^\w(\\$-]*",
    re.IGNORECASE,
)
SEVERAL = re.compile(
    r"\b(?:all|above|other|previous|following|these)\b[^.\n]{0,30}\b(?:answers|questions)\b|"
    r"\bthe (?:final )?answers\b|"
    r"以上|所有",
    re.IGNORECASE,
)
NEXT_QUESTION = re.compile(
    r"\n[ \t*#]*(?:(?:next|new)\s+)?(?:question|q|problem|human|user|exercise|frage|"
    r"pregunta)\b[ \t*]*\d*[ \t*]*[:.][ \t*]*\S",
    re.IGNORECASE,
)
_SPECIAL = re.compile(r"(?:\s|</?s>|<pad>|<\|[\w-]{1,40}\|>|<(?:end_of_turn|eos|eot)>)+\Z")
_THOUGHTS = ("</think>", "</thinking>", "</thought>")
"""Marks that end a model's reasoning inside its text; the answer comes after."""
_EMPHASIS = re.compile(r"\*{1,3}|__")


@dataclass(frozen=True, slots=True)
class Statement:
    """The statement at one place of a text. `strength` is from 0 to 1; `form` names the kind of place; `end`
    is where it ends."""

    wording: str
    place: int
    end: int
    strength: float
    form: str


def window(text: str) -> str:
    """The part of a text that is read: all of it, or the beginning and end of a very long one, without
    special tokens at its end."""
    thought = max((at + len(mark) for mark in _THOUGHTS if (at := text.rfind(mark)) >= 0), default=0)
    text = text[thought:] if text[thought:].strip() else text
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n\n{text[-TAIL_CHARS:]}"
    end = len(text)
    while end and (match := _SPECIAL.search(text, max(0, end - 256), end)) is not None:
        end = match.start()
    return text[:end]


def statements(text: str, *, a_line: bool = True) -> list[Statement]:
    """All statements of `text`, a window, that name its answer, in their order. `a_line` reads a line `A: 18`
    as the answer 18, and not as option A."""
    found = [
        *(Statement(wording, place, place + 1, 0.97, "json") for place, wording in answer_fields(text)),
        *_boxes(text),
        *_tags(text),
        *_calls(text),
    ]
    inside = sorted(each.place for each in found)
    for each in _marked(text, a_line=a_line):  # `Answer: \boxed{7}` is stated once
        at = bisect_left(inside, each.place)
        if at == len(inside) or inside[at] >= each.end:
            found.append(each)
    return sorted(found, key=lambda each: (each.place, each.strength))


def withdrawals(text: str) -> list[Statement]:
    """The statements that follow a withdrawal of an earlier one."""
    found = []
    for match in [*WITHDRAWAL.finditer(text)][-_MAX_PLACES:]:
        wording, end = _sentence(text, match.end())
        if wording:
            found.append(Statement(wording, match.start(), end, 0.7, "corrected"))
    return found


def sentences(text: str) -> list[str]:
    """The sentences of a text, without empty ones."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def last_statement(text: str) -> Statement | None:
    """The last sentence of a text that has content."""
    begin = max(0, len(text) - _MAX_CHARS)
    for match in reversed([*re.finditer(r"[^\n]+", text[begin:])]):
        line = match[0].strip()
        if line.strip("`*_$[]\\(){}# -<>/") and re.search(r"\w", line):
            wording = sentences(line)
            if wording:
                return Statement(wording[-1], begin + match.start(), begin + match.end(), 0.5, "last")
    return None


def plain(wording: str) -> str:
    """A statement without emphasis and code marks."""
    return _EMPHASIS.sub("", wording).strip().strip("`").strip()


def _boxes(text: str) -> Iterator[Statement]:
    for match in [*_BOXED.finditer(text)][-_MAX_PLACES:]:
        wording, end = _braced(text, match.end())
        if wording:
            yield Statement(wording, match.start(), end, 0.95, "boxed")
    for match in [*_BOXED_BARE.finditer(text)][-_MAX_PLACES:]:
        yield Statement(match[1], match.start(), match.end(), 0.9, "boxed")


def _braced(text: str, begin: int) -> tuple[str, int]:
    depth = 1
    for at in range(begin, min(len(text), begin + _MAX_CHARS)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at].strip(), at + 1
    return "", begin


def _tags(text: str) -> Iterator[Statement]:
    for match in [*_TAG.finditer(text)][-_MAX_PLACES:]:
        close = text.find("</", match.end(), match.end() + _MAX_CHARS)
        wording = text[match.end() : close if close >= 0 else match.end() + _MAX_CHARS].strip()
        if wording:
            yield Statement(wording, match.start(), match.end() + len(wording), 0.96, "tag")


def _calls(text: str) -> Iterator[Statement]:
    for match in [*_CALL.finditer(text)][-_MAX_PLACES:]:
        yield Statement(match[1].strip(), match.start(), match.end(), 0.96, "call")


def _marked(text: str, *, a_line: bool) -> Iterator[Statement]:
    places: dict[int, tuple[int, float, bool]] = {}
    for match in [*_MARKER.finditer(text)][-_MAX_PLACES:]:
        start = match.start()
        begin = max(0, start - _LOOK_BACK)
        if _UNASKED.search(text, begin, start) or _LISTS.search(match["gap"]):
            continue
        if (
            _KEY.match(text, match.end("noun")) and text[begin:start][-1:] in _QUOTES
        ):  # the field of some JSON
            continue
        lead = _LEAD.search(text, begin, start)
        introduction = lead[0].lower() if lead else ""
        words = len(match["gap"].split())
        strength = 0.9 if words <= 3 else 0.8 if words <= 8 else 0.6
        if _ASIDE.match(match["gap"]) and not introduction:
            strength = 0.6
        if "final" in introduction:
            strength = 0.93
        if _WEAK.fullmatch(match["noun"]):
            strength -= 0.05
        places[match.end()] = lead.start() if lead else start, strength, "final" not in introduction
    others = ((_EASTERN, 0.9), (_LINE, 0.9), (_HASHES, 0.92), *(((_A_LINE, 0.9),) if a_line else ()))
    for pattern, strength in others:
        for match in [*pattern.finditer(text)][-_MAX_PLACES:]:
            places[match.end()] = match.start(), strength, pattern is _EASTERN
    inner = sorted(start for start, _, rows in places.values() if rows)
    for end, (start, strength, rows) in sorted(places.items()):
        wording, stop = _sentence(text, end)
        at = bisect_left(inner, end)
        if wording and (
            rows or at == len(inner) or inner[at] > stop
        ):  # `Answer: the answer is 7` is stated once
            yield Statement(wording, start, stop, strength, "marker" if rows else "line")


def _sentence(text: str, begin: int) -> tuple[str, int]:
    """The sentence or formula that begins at `begin`, or in one of the next lines, and its end."""
    rest = text[begin : begin + _MAX_CHARS]
    skipped = len(rest) - len(rest.lstrip(" \t\r\n*_:\"'`"))
    rest = rest[skipped:]
    for opening, closing in _OPENED:
        if rest.startswith(opening):
            close = rest.find(closing, len(opening))
            if close >= 0:
                return rest[len(opening) : close].strip(), begin + skipped + close + len(closing)
    end = _SENTENCE_END.search(rest)
    wording = rest[: end.start()] if end else rest
    return plain(wording), begin + skipped + len(wording)
