"""The caller's text, and whether another text copies it, or our prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from orchestration.messages import ChatMessage
from orchestration.patterns.clipping import MARK
from orchestration.patterns.prompt_texts import EXAMPLES, HEADINGS, INSTRUCTIONS

EXAMPLE_RUN, INSTRUCTION_RUN = 5, 7
"""Words in a row that show a copy of an example, and of an instruction."""
MIN_TASK_WORDS, TASK_RUN, TASK_SHARE = 5, 3, 0.6
"""A subtask of at least `MIN_TASK_WORDS` words is a copy where `TASK_SHARE` of it stands in an example, in
runs of `TASK_RUN` words."""
TOKEN = re.compile(
    r"(?P<fence>```)|(?P<marker>\n[ \t]*(?:\d{1,3}[.)]|[-*•>|#]+)(?=\s|$))|"
    r"(?P<mark>[|{}<>;=\t]|,(?=[^\W\d]))|"
    r"(?P<word>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+)"
)
_REPEATS = re.compile(
    r"\b(?:repeat(?:ed|ing)?|over and over|again and again|chorus|refrain|mantra|chant|lyrics|wiederhol\w*|"
    r"répèt\w*|repite|repetir|repita|ripeti\w*|повтор\w*)\b|重复|重複|繰り返|"
    r"\b(?:\d+|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|fifty|hundred|thousand|"
    r"drei|fünf|zehn|zwanzig|hundert|tausend|trois|cinq|dix|vingt|cent|mille|tres|cinco|diez|veinte|cien|mil|"
    r"tre|dieci|venti|cento|десять|сто)\s*"
    r"(?:(?:times|copies|lines)\b(?! (?:a|an|per|as|more|less|larger|bigger|smaller|faster|tables?)\b)|"
    r"zeilen|lignes|líneas|righe|mal|fois|veces|volte|vezes|раз|次|遍|回)|"
    r"\b\d+\s?[x×](?!\s?\d)|\bas (?:often|many times) as\b|\b(?:placeholder|filler|dummy) text\b|"
    r"\blorem ipsum\b|\bsongs?\b|\bsing\b",
    re.IGNORECASE,
)
"""A request for copies."""
_HEADINGS = tuple(" ".join(head.casefold().split()).rstrip(":") for head in HEADINGS)
_AROUND_HEADS = " \t*#_>-:"


def heading_of(line: str) -> str:
    """A line in the form of `_HEADINGS`."""
    return line.casefold().replace("’", "'").strip(_AROUND_HEADS)


_GUESS = re.compile(
    r"\W*(?:the |my |our )?(?:final |correct |right )?answer(?: to [^.\n]{1,200}?)?\s*(?:is|:|=)(?!\w)",
    re.IGNORECASE,
)


class CallerText:
    """The caller's messages, and other texts that an answer may repeat, such as its sources."""

    def __init__(self, messages: Sequence[ChatMessage], also: Iterable[str] = ()) -> None:
        contents = [message.content for message in messages]
        self.text = "\n".join(contents)
        self.words = f" {' '.join(words_of([*contents, *also]))} "
        self.wants_copies = bool(contents) and any(
            _REPEATS.search(each.content) for each in messages if each.role != "assistant"
        )
        lines = {heading_of(line) for line in self.text.splitlines()}
        self.headings = [head for head in _HEADINGS if head not in lines]
        """Our headings that the answer must not have."""
        self.has_mark = MARK.search(self.text) is not None
        examples = (each.shown for each in EXAMPLES if not each.is_about(self.text))
        self.examples = joined_words(text for shown in examples for text in shown)

    def contains(self, words: Sequence[str]) -> bool:
        return f" {' '.join(words)} " in self.words


def is_no_task(task: str, caller: CallerText) -> bool:
    """Whether a subtask is not work on the question: copied from an example, or a guess at the answer."""
    return _GUESS.match(task) is not None or is_of_an_example(task, caller)


def is_of_an_example(task: str, caller: CallerText) -> bool:
    """Whether a subtask was copied from the example in a prompt, which is about another question."""
    if any(each.tells(task) for each in EXAMPLES if not each.is_about(caller.text)):
        return True
    words, copied = words_of([task]), set[int]()
    for at in range(len(words) - TASK_RUN + 1):
        part = words[at : at + TASK_RUN]
        if f" {' '.join(part)} " in caller.examples and not caller.contains(part):
            copied.update(range(at, at + TASK_RUN))
    return len(words) >= MIN_TASK_WORDS and len(copied) >= TASK_SHARE * len(words)


def words_of(texts: Iterable[str]) -> list[str]:
    """The words of texts in lower case; a character of Chinese, Japanese or Korean is a word."""
    return [
        token["word"].casefold() for text in texts for token in TOKEN.finditer(f"\n{text}") if token["word"]
    ]


def joined_words(texts: Iterable[str]) -> str:
    """The words of texts for a search of runs of words; no run crosses two texts."""
    return " | ".join(f" {' '.join(words_of([text]))} " for text in texts)


INSTRUCTION_WORDS = joined_words(INSTRUCTIONS)
