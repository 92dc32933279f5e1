"""Which language a short text is in: by its script, else by its commonest words."""

from __future__ import annotations

import re

_SCRIPTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("uk", re.compile(r"[іїєґІЇЄҐ]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
_COMMON: dict[str, str] = {
    "en": (
        "the a an of to in is are was were do does did what who how why which when where and or for with "
        "on i you my your it this that me if can write give tell from at by be have has hi hello hey "
        "thanks good"
    ),
    "de": (
        "der die das ein eine einen einem einer und oder ist sind war was wer wie wo wann warum welche "
        "welcher ich du mir mich dir nicht mit für auf von zu im in den dem des wenn hallo danke schreib "
        "schreibe erkläre viele viel guten morgen über es sich heute heißt bis bald"
    ),
    "fr": (
        "le la les un une des du de et ou est sont qui que quoi quel quelle quels comment pourquoi "
        "combien je tu il elle nous vous ne pas pour avec sur dans en au aux ce cette si écris bonjour "
        "merci salut ça mon ma mes suis vas ton qu est-ce l d"
    ),
    "es": (
        "el la los las un una unos y o es son qué quién cuál cuáles cómo dónde cuándo cuánto cuántos "
        "cuánta por para con en de del al no se me te mi tu yo está estás estoy hola gracias escribe "
        "sobre si que hay más muy buenos días llamas"
    ),
    "it": (
        "il lo la gli i le un una uno e o è sono che chi cosa come dove quando quanto quanti quale per "
        "con su in di del della al non mi ti si ciao grazie scrivi oggi qual l fa tra stai va"
    ),
    "pt": (
        "o a os as um uma e ou é são que quem qual como onde quando quanto quantos por para com em de do "
        "da dos das no na não se me te eu você oi olá obrigado obrigada escreva sobre boa tudo ano crie "
        "estou hoje muito"
    ),
    "nl": (
        "de het een en of is zijn wat wie hoe waar wanneer waarom welke ik jij je mij niet met voor op "
        "van te in als die dat heeft hallo hoi dank schrijf over hoeveel gaat uit naar verzin tot morgen"
    ),
    "pl": (
        "i w na z do jest są co kto jak gdzie kiedy dlaczego ile nie się mi ty ja dla czy o od po że "
        "cześć dziękuję"
    ),
    "tr": (
        "ve bir bu ne kim nasıl nerede neden kaç mı mi mu ben sen için ile de da merhaba teşekkürler var yok"
    ),
    "sv": (
        "och en ett det är var vad vem hur när varför jag du inte med för på av till i som hej tack om att"
    ),
}
_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
_NONE: frozenset[str] = frozenset()
_MARKS = {
    "de": frozenset("äöüß"),
    "fr": frozenset("àâçèêëîïôûùœ"),
    "es": frozenset("ñ¿¡áíóú"),
    "pt": frozenset("ãõâêç"),
    "it": frozenset("ìòù"),
    "pl": frozenset("ąćęłńśźż"),
}
"""Letters that few other languages have."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SPLIT = re.compile(r"['’]")
LANGUAGES: tuple[str, ...] = (*_COMMON, *(name for name, _ in _SCRIPTS))


def language(text: str) -> str:
    """The ISO 639-1 code of one of `LANGUAGES`; `en` where nothing tells."""
    for name, script in _SCRIPTS:
        if script.search(text):
            return name
    words = [part for word in _WORD.findall(text.lower()) for part in (word, *_SPLIT.split(word)[:-1])]
    letters = set(text.lower())
    votes = {
        name: sum(word in common for word in words) + 0.7 * bool(_MARKS.get(name, _NONE) & letters)
        for name, common in _WORDS.items()
    }
    best = max(votes, key=votes.__getitem__)
    return best if votes[best] > votes["en"] else "en"
