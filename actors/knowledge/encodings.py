"""Detects the encoding of a text: by byte order mark, as UTF-8, by zero bytes, or by its letters.

Short texts are too little for statistics, which confuse Spanish and Hungarian. The alphabet is a better sign:
in the right encoding the words have the letters of one language, no symbols inside words, and no capital
after a small letter. The default is Windows-1252 unless another encoding fits clearly better.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from unicodedata import combining

from actors.knowledge.errors import UnreadableDocument
from orchestration.errors import InvalidRequest

WINDOWS = "windows-1252"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = {
    "iso-8859-1": WINDOWS,
    "latin-1": WINDOWS,
    "latin1": WINDOWS,
    "us-ascii": WINDOWS,
    "ascii": WINDOWS,
}
"""The encodings meant by these declarations (WHATWG Encoding Standard, 4.2)."""
_WORDS = 1_000
"""Maximum examined words that are not all ASCII."""
_SAMPLE_BYTES = 65_536
"""Maximum examined bytes of a text without spaces, such as Chinese."""
_FITS = 0.1
"""Maximum share of misplaced letters and symbols for an encoding to be accepted."""
_BROKEN = 0.1
"""Maximum share of broken characters for a text to be taken for damaged UTF-8."""
_NEAR_BYTES = 1 << 19
"""Bytes examined on both sides of the first invalid UTF-8 byte."""
_HIGH = re.compile(rb"[\x80-\xff]{1,80}")
_BREAK = re.compile(rb"[\s\x00-\x1f<>]")
_WORD_BYTES = 80
"""Maximum bytes of a word before and after its non-ASCII part."""
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]")
_WIDE = ((0x4E, 0x9F), (0xAC, 0xD7), (0xD8, 0xDF))
"""First bytes in UTF-16 of Chinese characters, of hangul, and of the halves of pairs."""
_SCRIPTS = 6
"""Maximum scripts in one text, symbols and full-width forms included."""
_CONTROL = bytes([*range(9), *range(14, 27), *range(28, 32), 127])
_IN_WORDS = frozenset("’‘–—…·\xad\xa0")
"""Symbols that may stand between two letters."""
_LETTER_SIGNS = frozenset("ªºµƒ")
"""Signs that count as letters and are in no alphabet."""
_NO_CURRENCY = "¤"
"""The currency sign is never written; ISO 8859-15 has the euro in its place."""
_BEFORE_WORDS = frozenset("¿¡„‚“‘«‹")

_ALPHABETS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        WINDOWS,
        (
            "áéíóúüñçàèìòùâêîôûäëïöÿæœ",  # French, Italian, Spanish, Catalan, Dutch
            "áâãàçéêíóôõúü",
            "äöüßéèàçñ",
            "åäöéüàèáøæê",
            "áéíóúýþæöðø",
            "äöõüšž",
        ),
    ),
    ("iso-8859-15", ("áéíóúüñçàèìòùâêîôûäëïöÿæœ", "äöõüšž")),
    ("windows-1250", ("ąćęłńóśźż", "áčďéěíňóřšťúůýžäĺľôŕ", "áéíóöőúüű", "čćđšž", "ăâîşţ")),
    ("iso-8859-2", ("ąćęłńóśźż", "áčďéěíňóřšťúůýžäĺľôŕ", "áéíóöőúüű", "čćđšž", "ăâîşţ")),
    ("windows-1254", ("çğıiöşüâîû\u0307",)),
    ("windows-1257", ("ąčęėįšųūž", "āčēģīķļņšūž")),
    (
        "windows-1251",
        (
            "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
            "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя",
            "абвгдђежзијклљмнњопрстћуфхцчџш",
        ),
    ),
    ("koi8-r", ("абвгдеёжзийклмнопрстуфхцчшщъыьэюя",)),
    ("iso-8859-5", ("абвгдеёжзийклмнопрстуфхцчшщъыьэюя", "абвгдеєжзиіїйклмнопрстуфхцчшщьюя")),
    ("windows-1253", ("αάβγδεέζηήθιίϊΐκλμνξοόπρσςτυύϋΰφχψωώ",)),
    ("windows-1255", ("אבגדהוזחטיךכלםמןנסעףפץצקרשת",)),
    ("windows-1256", ("ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىيپچژگ",)),
    ("cp866", ("абвгдеёжзийклмнопрстуфхцчшщъыьэюя",)),
    ("mac-roman", ("áéíóúüñçàèìòùâêîôûäëïöÿæœ", "áâãàçéêíóôõúü", "äöüßéèàçñ", "åäöéüàèáøæê")),
    ("cp850", ("áéíóúüñçàèìòùâêîôûäëïöÿæ", "áâãàçéêíóôõúü", "äöüßéèàçñ", "åäöéüàèáøæê")),
)
"""Encodings with the letters beyond ASCII of languages that are written in them, the likelier ones first."""
_LATIN = frozenset(
    (
        WINDOWS,
        "iso-8859-15",
        "windows-1250",
        "iso-8859-2",
        "windows-1254",
        "windows-1257",
        "mac-roman",
        "cp850",
    )
)
_HEBREW, _HEBREW_LETTERS = "windows-1255", 12
"""Hebrew reads as small Cyrillic letters, so it is looked for first in a text of as many."""
_FINAL = frozenset("ךםןףץ")
"""Letters that only end a Hebrew word."""
_EAST_ASIAN = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uac00-\ud7a3\uff01-\uff5e]")
_COMMON: tuple[tuple[str, re.Pattern[bytes], float], ...] = (
    ("euc-jp", re.compile(rb"[\xa4\xa5][\xa1-\xf6]"), 0.2),
    ("shift_jis", re.compile(rb"\x82[\x9f-\xf1]|\x83[\x40-\x96]"), 0.2),
    ("euc-kr", re.compile(rb"[\xb0-\xc8][\xa1-\xfe]"), 0.7),
    ("gb18030", re.compile(rb"[\xb0-\xd7][\xa1-\xfe]"), 0.6),
    ("big5", re.compile(rb"[\xa4-\xc6][\x40-\x7e\xa1-\xfe]"), 0.6),
)
"""What most texts in these encodings hold (kana, hangul, frequent characters), and its share at least."""


@dataclass(frozen=True, slots=True)
class DecodedText:
    """A text and its detected encoding."""

    text: str
    encoding: str


def check_encoding(name: str) -> str:
    """`name` if it is a known encoding. Raises `InvalidRequest` otherwise."""
    try:
        b"text".decode(name)
    except UnicodeError:
        pass  # a known encoding, but not of this text
    except (LookupError, ValueError) as error:
        raise InvalidRequest(
            f"unknown encoding {name[:40]!r}; write utf-8, utf-16, windows-1252, shift_jis or the like",
            param="encoding",
        ) from error
    return name


def decode(data: bytes, *, declared: str = "", given: str = "") -> DecodedText:
    """The text of `data` in the encoding `given`, else in the detected one.

    Raises `UnreadableDocument` if it is not text, or not in the given encoding.
    """
    if given:
        return DecodedText(_strictly(data, given, "the given encoding is"), given)
    for mark, name in _BOMS:
        if data.startswith(mark):
            return DecodedText(_strictly(data, name, "its byte order mark says"), name)
    if b"\0" in data:
        return _with_zeros(data)
    controls = len(data) - len(data.translate(None, _CONTROL)) > len(data) / 200
    if controls and (name := _utf_16_without_ascii(data)):
        return DecodedText(data.decode(name), name)
    try:
        return DecodedText(data.decode(), "utf-8")
    except UnicodeDecodeError as error:
        near = data[max(0, error.start - _NEAR_BYTES) : error.start + _NEAR_BYTES].decode(errors="replace")
    broken = near.count("\ufffd")
    if broken <= _BROKEN * sum(1 for char in near if not char.isascii() and char != "\ufffd"):
        return DecodedText(data.decode(errors="replace"), "utf-8 with broken characters")
    if controls:
        raise UnreadableDocument("it is not text (it holds control characters)")
    meant = "" if declared.lower().startswith("utf-") else _DECLARED.get(declared.lower(), declared)
    for name in filter(None, (meant, _guess(data))):
        try:
            return DecodedText(_text(data, name), name)
        except (UnicodeError, LookupError):
            continue
    return DecodedText(_text(data, WINDOWS), WINDOWS)


def _strictly(data: bytes, name: str, why: str) -> str:
    try:
        return data.decode(name).removeprefix("\ufeff")
    except UnicodeError as error:
        at = f": {error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise UnreadableDocument(f"{why} {name}, but the text is not{at}") from error


def _text(data: bytes, name: str) -> str:
    """Decode. The five undefined bytes of Windows-1252 become control characters, as in browsers."""
    return data.decode(name, errors="orchestra_c1" if name == WINDOWS else "strict")


def _as_control(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("orchestra_c1", _as_control)


def _with_zeros(data: bytes) -> DecodedText:
    """Decode UTF-16 or UTF-32 without a byte order mark: zero bytes are at regular positions. A few of them
    in otherwise valid UTF-8 do not count."""
    places = [data[at::4].count(0) for at in range(4)]
    even, odd = places[0] + places[2], places[1] + places[3]
    guesses = []
    if len(data) % 4 == 0 and max(places) == len(data) // 4:
        guesses.append("utf-32-le" if places[3] == len(data) // 4 else "utf-32-be")
    few = sum(places) * 4 <= len(data)
    foreign = not few or not _is_utf_8(data) or len(data.translate(None, _CONTROL[1:])) < len(data)
    if len(data) % 2 == 0 and min(even, odd) * 20 <= max(even, odd) and foreign:
        guesses.append("utf-16-le" if odd > even else "utf-16-be")
    for name in guesses:
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if not _NO_TEXT.search(text):
            return DecodedText(text, name)
    raise UnreadableDocument("it is not text (it holds zero bytes)")


def _utf_16_without_ascii(data: bytes) -> str:
    """The name of UTF-16 without byte order mark and zero bytes, '' if it is not: every second byte is one of
    few values, as it selects the script."""
    if len(data) % 2:
        return ""
    sample, ascii_like = data[:_SAMPLE_BYTES], _is_utf_8(data)
    found = []
    for name, tops in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        scripts = Counter(next((low for low, high in _WIDE if low <= top <= high), top) for top in tops)
        ((largest, _),) = scripts.most_common(1)
        # ASCII with control characters looks like Chinese, which in turn is not valid UTF-8.
        if len(scripts) <= min(_SCRIPTS, len(tops) // 2) and (largest < 0x20 or not ascii_like):
            found.append((len(scripts), name))
    for _, name in sorted(found, key=lambda each: each[0]):
        with suppress(UnicodeDecodeError):
            if not _NO_TEXT.search(data.decode(name)):
                return name
    return ""


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _guess(data: bytes) -> str:
    """The encoding in which the words fit a language best; '' if none fits clearly."""
    words = [*islice(_words(data), _WORDS)]
    count = sum(len(re.findall(rb"[\x80-\xff]", word)) for word in words)
    order = sorted(_ALPHABETS, key=lambda each: each[0] != _HEBREW or count < _HEBREW_LETTERS)
    best, (fewest, letters) = WINDOWS, _misfits(words, *_ALPHABETS[0])
    for name, alphabets in order:
        misfits, found = _misfits(words, name, alphabets)
        misfits += max(0, letters - found)  # the right encoding turns no letters into symbols
        if not found and name not in _LATIN:
            continue  # an encoding of another script, without letters of it
        if misfits < (fewest / 2 if best == WINDOWS else fewest):
            best, fewest = name, misfits
    if fewest and (several := _of_several_bytes(data)):
        return several
    return best if fewest <= _FITS * count else ""


def _words(data: bytes) -> Iterator[bytes]:
    """Words that are not all ASCII, with adjacent symbols."""
    end = 0
    for found in _HIGH.finditer(data):
        if found.start() >= end:
            start, stop = found.span()
            before = _BREAK.split(data[max(end, start - _WORD_BYTES) : start])[-1]
            end = stop + len(_BREAK.split(data[stop : stop + _WORD_BYTES], maxsplit=1)[0])
            yield data[start - len(before) : end]


def _misfits(words: Iterable[bytes], name: str, alphabets: Iterable[str]) -> tuple[float, int]:
    """The number of misplaced letters and symbols for the best fitting language, and of non-ASCII letters."""
    try:
        texts = [word.decode(name) for word in words]
    except UnicodeDecodeError:
        return float("inf"), 0
    strange = [letter for text in texts for letter in _strange(text, latin=name in _LATIN)]
    signs = sum(1 for letter in strange if not letter)
    fit = min(sum(1 for letter in strange if letter and letter not in known) for known in alphabets)
    letters = sum(1 for text in texts for char in text if char.isalpha() and not char.isascii())
    return signs + fit, letters


def _strange(text: str, *, latin: bool) -> Iterator[str]:
    """Non-ASCII letters in lower case; '' for each misplaced letter or symbol."""
    around = f" {text} "
    for before, char, after in zip(around, text, around[2:], strict=False):
        if char.isascii():
            continue
        if char in _LETTER_SIGNS:
            continue
        if not char.isalpha():
            joins = char in _IN_WORDS and (char != "·" or before.lower() == after.lower() == "l")  # Catalan
            inside = before.isalpha() and after.isalpha() and not joins
            opens = char in _BEFORE_WORDS and before.isalpha()
            if (
                inside
                or opens
                or char == _NO_CURRENCY
                or not (char.isprintable() or char in _IN_WORDS)
                or combining(char)
            ):
                yield ""
        elif (
            (before.islower() and char.isupper())
            or (not latin and any(near.isascii() and near.isalpha() for near in (before, after)))
            or (char in _FINAL and after.isalpha())
        ):
            yield ""
        else:
            yield from char.lower()


def _of_several_bytes(data: bytes) -> str:
    """A multi-byte East Asian encoding; '' if none fits."""
    first = re.search(rb"[\x80-\xff]", data)
    start = 0 if first is None else data.rfind(b"\n", 0, first.start()) + 1
    sample = data[start : start + _SAMPLE_BYTES]
    for name, common, share in _COMMON:
        try:
            text = codecs.getincrementaldecoder(name)().decode(sample)  # it may end within a character
        except UnicodeDecodeError:
            continue
        foreign = sum(1 for char in text if not char.isascii())
        found = len(common.findall(sample))
        if found >= share * foreign and len(_EAST_ASIAN.findall(text)) >= 0.95 * foreign:
            return name
    return ""
