"""Checks whether a text can be an answer: it must not repeat our prompts, loop, or have the mark of a clipped
text.

Small models continue the example that a prompt shows, recite the criteria of a good answer, or repeat a line
until they run out of tokens. A text may repeat what the caller wrote, as often as it likes.
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
"""An answer with at least this share of whole notes of the team, such as the critic's remarks, consists of
them."""
MAX_UNIT = 200
"""Maximum words of a fragment whose repetition is detected."""
MAX_COPIES, MAX_SHORT_COPIES, MAX_LONG_COPIES = 5, 24, 3
"""Allowed copies of a fragment in a row; of one with fewer than `SHORT_UNIT` words; of one with at least
`LONG_UNIT`."""
SHORT_UNIT, LONG_UNIT = 3, 48
MAX_ROWS = 32
"""Allowed copies of a fragment with marks of a form, such as a table row, a JSON entry or an HTML element."""
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
"""End marks of well-known chat templates."""
MARK_CHARACTERS = 64
"""Maximum characters of the mark of a clipped text."""

_MARK_START = re.compile(r"(?:\[|\[?(?:…|\.\.\.)\s*\d*[ \w]{0,22})\Z")


_HEAD_CHARACTERS = 48
"""Maximum characters of a line that may be one of our headings."""


class AnswerCheck:
    """Checks one answer as it streams in. `inside` are texts for the team's own use: criteria, remarks.
    `problem` is '' until a problem is found."""

    def __init__(self, caller: CallerText, inside: Iterable[str] = ()) -> None:
        self.problem = ""
        self._caller = caller
        self._inside = [joined_words([note]) for note in inside if len(words_of([note])) > 1]
        self._end, self._read, self._has_text = "", 0, False
        """The last characters of the text, the number of all characters, and whether any is not white
        space."""
        self._line = ""
        """The beginning of the current line."""
        self._tail, self._at = "\n", -1
        """The text that is not split into words yet, and its position."""
        self._words: list[str] = []
        self._starts: list[int] = []
        """The position of each word, in characters of the text."""
        self._is_code = self._has_mark = False
        self._marked: list[bool] = []
        """Whether a mark of a form stands before each word."""
        self._positions: dict[str, list[int]] = {}
        """The latest indices of each word."""
        self._copied: dict[int, int] = {}
        """For each length of a fragment, how many words in a row equal the word that many places before."""
        self._allowed: list[int] = []
        """Lengths of fragments that repeat now and are allowed to."""

    def read(self, text: str) -> None:
        """Check more of the answer, in time linear in its length."""
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
        """The number of characters read that no later text can make a problem; 0 where there is a problem."""
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
        mark = _MARK_START.search(self._end[-MARK_CHARACTERS:])
        sure = min(sure, self._read - len(mark[0]) if mark else sure)
        heading = heading_of(self._line)
        if any(head.startswith(heading) for head in self._caller.headings if heading):
            sure = min(sure, self._read - len(self._line))
        return max(0, sure)

    def end(self) -> str:
        """The problem of the whole answer, as words that follow "it"; '' where there is none."""
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
        """Check the words in the first `cut` characters of the tail."""
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
            if len(latest) == run and f" {' '.join(latest)} " in own and not self._caller.contains(latest):
                self.problem = f"repeats our own prompt: “{' '.join(latest)}”"
                return
        if self._is_code or self._caller.wants_copies:
            return
        words, last = self._words, len(self._words) - 1
        before = [at for at in self._positions.get(words[last], ()) if last - at <= MAX_UNIT]
        self._positions[words[last]] = [*before, last]
        self._allowed = [length for length in self._allowed if last - length in before]
        lengths = (last - at for at in before)
        if self._allowed:
            lengths = (each for each in lengths if all(each % length for length in self._allowed))
        self._copied = {length: self._copied.get(length, 0) + 1 for length in lengths}
        for length in sorted(self._copied):
            max_copies = MAX_COPIES if length >= SHORT_UNIT else MAX_SHORT_COPIES
            max_copies = MAX_LONG_COPIES if length >= LONG_UNIT else max_copies
            copies = self._copied[length] // length + 1
            if self._copied[length] % length or copies not in (max_copies, MAX_ROWS):
                continue  # nearly always: looking through the marks costs more
            if copies != (MAX_ROWS if any(self._marked[-length:]) else max_copies):
                continue
            if not self._is_loop(words[-length:]):
                self._allowed.append(length)
            else:
                self.problem = f"says the same again and again: “{' '.join(words[-length:])[:80]}”"
                return

    def _is_loop(self, unit: Sequence[str]) -> bool:
        """Whether a repeated fragment is a loop. Numbers may repeat, and so may quoted text that repeats in
        its source."""
        if not any(word.isalpha() for word in unit):
            return False
        return not any(self._caller.contains([*unit[at:], *unit, *unit[:at]]) for at in range(len(unit)))

    def _is_inside(self) -> bool:
        words, covered = f" {' '.join(self._words)} ", 0
        for note in self._inside:
            if note not in self._caller.words:
                covered += words.count(note) * len(note.split())
                words = words.replace(note, "  ")
        return covered >= INSIDE_SHARE * len(self._words) > 0


def problem_of(text: str, caller: CallerText, inside: Iterable[str] = ()) -> str:
    """The problem of a whole text as an answer; '' where there is none."""
    check = AnswerCheck(caller, inside)
    check.read(text)
    return check.end()


def without_end_marks(text: str) -> str:
    """The text without the end marks that an upstream left in it."""
    stripped = text.rstrip()
    while stripped.endswith(END_MARKS):
        mark = next(mark for mark in END_MARKS if stripped.endswith(mark))
        stripped = stripped[: -len(mark)].rstrip()
    return text if len(stripped) == len(text.rstrip()) else stripped


def is_echo(text: str, request: str) -> bool:
    """Whether a text is the whole request, once or several times, as the echo backend answers. A model that
    continues a prompt repeats only parts of it."""
    words, source = text.split(), request.split()
    return len(words) >= len(source) > 0 and all(
        word == source[at % len(source)] for at, word in enumerate(words)
    )
