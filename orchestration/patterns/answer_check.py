"""Whether a text may be an answer: it has none of our prompts' words, no loop and no mark of a clipped text.

Small models go on from the example that a prompt shows, recite the criteria of a good answer, or say the same
line until they run out of tokens. What the caller said may be said again, as often as is wished.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from orchestration.patterns.caller_text import (
    EXAMPLE_RUN,
    INSTRUCTION_RUN,
    INSTRUCTION_WORDS,
    TOKEN,
    CallerText,
    heading_of,
    joined_words,
    words_of,
)
from orchestration.patterns.clipping import MARK

INSIDE_SHARE = 0.6
"""An answer consists of the team's own notes, such as the critic's remarks, where so much of it is such
notes, each of them whole."""
LONGEST_UNIT = 200
"""Words of a fragment whose repetition is seen."""
MOST_COPIES, MOST_SHORT_COPIES, MOST_LONG_COPIES = 5, 24, 3
"""Of a fragment in a row, of one that has fewer than `SHORT_UNIT` words, and from `LONG_UNIT` on."""
SHORT_UNIT, LONG_UNIT = 3, 48
MOST_ROWS = 32
"""Of a fragment with marks of a form, such as a row of a table, an entry of JSON or an element of HTML."""
END_MARKS = (
    "</s>",
    "<eos>",
    "<|end|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
    "[/INST]",
)
"""Of well-known chat templates."""
MARK_CHARACTERS = 64
"""That the mark of a clipped text has at most."""

_MARK_BEGUN = re.compile(r"(?:\[|\[?(?:…|\.\.\.)\s*\d*[ \w]{0,22})\Z")


_HEAD_CHARACTERS = 48
"""Of a line that may be one of them."""


class AnswerCheck:
    """Reads one answer as it comes. `inside` are texts that were made for the team's own use: criteria,
    remarks. `problem` is '' until something is found."""

    def __init__(self, caller: CallerText, inside: Iterable[str] = ()) -> None:
        self.problem = ""
        self._caller = caller
        self._inside = [joined_words([note]) for note in inside if len(words_of([note])) > 1]
        self._end, self._read, self._has_text = "", 0, False
        """The last characters of the text, and how many there are in all."""
        self._line = ""
        """The beginning of the line that has not ended."""
        self._tail, self._at = "\n", -1
        """What no words were made of yet, and where in the text it begins."""
        self._words: list[str] = []
        self._starts: list[int] = []
        """Of the words, in characters of the text."""
        self._is_code = self._has_mark = False
        self._marked: list[bool] = []
        """Of the words, whether a mark of a form is before it."""
        self._seen: dict[str, list[int]] = {}
        """Where each word was among the latest ones."""
        self._copied: dict[int, int] = {}
        """By the length of a fragment: words in a row that are those so many before."""
        self._allowed: list[int] = []
        """Lengths of fragments that are repeated now, and may be."""

    def read(self, text: str) -> None:
        """More of the answer. Takes a time that is linear in it."""
        self._end = (self._end + text)[-MARK_CHARACTERS - len(text) :]
        self._read += len(text)
        self._has_text = self._has_text or bool(text.strip())
        self._tail += text
        cut = max(self._tail.rfind(" "), self._tail.rfind("\n"))
        if cut <= 0 and len(self._tail) > 256:
            cut = len(self._tail)
        if cut > 0:
            self._take(cut)
        if not self.problem and MARK.search(self._end) and not self._caller.has_mark:
            self.problem = "has the mark of a text that was clipped"
        self._look_for_headings(text)

    @property
    def sure(self) -> int:
        """Characters of what was read that become no problem, whatever comes; 0 where there is one."""
        if self.problem:
            return 0
        pending = words_of([self._tail])
        starts = [*self._starts[-INSTRUCTION_RUN:], *([self._at] * len(pending))]
        words = [*self._words[-INSTRUCTION_RUN:], *pending]
        sure = self._read
        for length in range(1, min(len(words), INSTRUCTION_RUN) + 1):
            run = f" {' '.join(words[-length:])}"
            if run in INSTRUCTION_WORDS or run in self._caller.examples:
                sure = min(sure, starts[-length])
        for length, words_copied in self._copied.items():
            if length >= SHORT_UNIT:
                sure = min(sure, self._starts[-words_copied])
        mark = _MARK_BEGUN.search(self._end[-MARK_CHARACTERS:])
        sure = min(sure, self._read - len(mark[0]) if mark else sure)
        begun = heading_of(self._line)
        if any(head.startswith(begun) for head in self._caller.headings if begun):
            sure = min(sure, self._read - len(self._line))
        return max(0, sure)

    def end(self) -> str:
        """The problem of the whole answer, in words that follow "it"; '' where there is none."""
        self._take(len(self._tail))
        self._look_for_headings("\n")
        if not self.problem and not self._has_text:
            self.problem = "says nothing"
        if not self.problem and self._is_inside():
            self.problem = "consists of the team's own notes"
        return self.problem

    def _look_for_headings(self, text: str) -> None:
        *whole, last = (self._line + text).split("\n")
        for line in whole:
            if (
                not self.problem
                and len(line) <= _HEAD_CHARACTERS
                and heading_of(line) in self._caller.headings
            ):
                self.problem = f"repeats our own prompt: “{line.strip()}”"
        self._line = last[: _HEAD_CHARACTERS + 1]

    def _take(self, cut: int) -> None:
        """Words of the tail's first `cut` characters."""
        for token in TOKEN.finditer(self._tail, 0, cut):
            if token["fence"]:
                self._is_code = not self._is_code
            elif token["mark"] or (token["marker"] or "").strip() == "|":
                self._has_mark = True
            elif token["word"] and not self.problem:
                self._marked.append(self._has_mark)
                self._has_mark = False
                self._words.append(token["word"].casefold())
                self._starts.append(self._at + token.start())
                self._look()
        self._tail, self._at = self._tail[cut:], self._at + cut

    def _look(self) -> None:
        for own, run in ((self._caller.examples, EXAMPLE_RUN), (INSTRUCTION_WORDS, INSTRUCTION_RUN)):
            latest = self._words[-run:]
            if len(latest) == run and f" {' '.join(latest)} " in own and not self._caller.said(latest):
                self.problem = f"repeats our own prompt: “{' '.join(latest)}”"
                return
        if self._is_code or self._caller.wants_copies:
            return
        words, last = self._words, len(self._words) - 1
        before = [at for at in self._seen.get(words[last], ()) if last - at <= LONGEST_UNIT]
        self._seen[words[last]] = [*before, last]
        self._allowed = [length for length in self._allowed if last - length in before]
        lengths = (last - at for at in before)
        if self._allowed:
            lengths = (each for each in lengths if all(each % length for length in self._allowed))
        self._copied = {length: self._copied.get(length, 0) + 1 for length in lengths}
        for length in sorted(self._copied):
            most = MOST_COPIES if length >= SHORT_UNIT else MOST_SHORT_COPIES
            most = MOST_LONG_COPIES if length >= LONG_UNIT else most
            most = MOST_ROWS if any(self._marked[-length:]) else most
            if self._copied[length] != length * (most - 1):
                continue
            if not self._is_loop(words[-length:]):
                self._allowed.append(length)
            else:
                self.problem = f"says the same again and again: “{' '.join(words[-length:])[:80]}”"
                return

    def _is_loop(self, unit: Sequence[str]) -> bool:
        """Numbers may repeat, and so may what a text has more than once in a row that is quoted."""
        if not any(word.isalpha() for word in unit):
            return False
        return not any(self._caller.said([*unit[at:], *unit, *unit[:at]]) for at in range(len(unit)))

    def _is_inside(self) -> bool:
        words, covered = f" {' '.join(self._words)} ", 0
        for note in self._inside:
            if note not in self._caller.words:
                covered += words.count(note) * len(note.split())
                words = words.replace(note, "  ")
        return covered >= INSIDE_SHARE * len(self._words) > 0


def problem_of(text: str, caller: CallerText, inside: Iterable[str] = ()) -> str:
    """What is wrong with a whole text as an answer; '' where nothing is."""
    check = AnswerCheck(caller, inside)
    check.read(text)
    return check.end()


def without_end_marks(text: str) -> str:
    """`text` without the marks of its end that an upstream leaves there: they are no words of its model."""
    kept = text.rstrip()
    while kept.endswith(END_MARKS):
        mark = next(mark for mark in END_MARKS if kept.endswith(mark))
        kept = kept[: -len(mark)].rstrip()
    return text if len(kept) == len(text.rstrip()) else kept


def is_echo(text: str, asked: str) -> bool:
    """Whether a text is the whole request, said once or more, as the backend for dry runs says it. A model
    that goes on from a prompt says parts of it."""
    words, source = text.split(), asked.split()
    return len(words) >= len(source) > 0 and all(
        word == source[at % len(source)] for at, word in enumerate(words)
    )
