"""Surface features of a query: cues of its kind in several languages, and its form."""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["factual", "reasoning", "creative", "code", "conversation"]
KINDS: tuple[Kind, ...] = ("factual", "reasoning", "creative", "code", "conversation")

_WORDS: dict[Kind, str] = {
    "code": (
        r"code|program(?:me|ming)?|function|funktion|fonction|funzione|função|functie|función|script|"
        r"skript|python|java|javascript|typescript|c\+\+|c#|golang|rust|swift|kotlin|haskell|php|ruby|perl|"
        r"scala|bash|shell|linux|sql|postgres|mysql|sqlite|html|css|react|vue|angular|node(?:\.js)?|npm|"
        r"pip|pandas|numpy|django|flask|fastapi|regex|regular expression|api|rest|json|yaml|xml|csv|git|"
        r"docker\w*|kubernetes|terraform|redis|compil\w*|debug\w*|refactor\w*|unit tests?|exception|"
        r"stack trace|segfault|array|linked list|tuple|dict|string|loop|recursi\w*|algorithm|"
        r"implement\w*|class|method|variable|compiler|parser|query|index\w*|thread|async|endpoint|"
        r"middleware|framework|library|bug|syntax|runtime|\w*error|nullpointer\w*|программ\w*|функци\w*|"
        r"код\w*|массив\w*"
    ),
    "creative": (
        r"poem|haiku|sonnet|limerick|ballad|ode|rhym\w*|lyrics|song|rap|story|tale|fable|legend|novel|"
        r"chapter|screenplay|scene|monologue|dialogue|plot|character|slogan|tagline|caption|joke|riddle|"
        r"toast|speech|eulogy|letter|invitation|greeting|wish|invent|imagine|compose|come up with|make up|"
        r"brainstorm|creative|funny|playful|in the style of|rewrite|retell|title|name for|nickname|pun|"
        r"gedicht\w*|dicht\w*|geschichte|märchen|erfind\w*|erzähl\w*|einladung|witz|verfass\w*|"
        r"poème|poésie|conte|histoire d\w*|raconte|invente|rédige|"
        r"poema|cuento|historia sobre|inventa|eslogan|redacta|cuéntame|"
        r"poesia|racconta|favola|storia|conte uma|crie um|escreva um|"
        r"gedicht|verhaal|verzin|стих\w*|сочини|придумай|рассказ\w*|сказк\w*"
    ),
    "reasoning": (
        r"how many|how much|calculate|compute|solve|prove|proof|derive|derivative|integra\w*|equation|"
        r"percent\w*|probability|odds|average|sum|compare|comparison|contrast|versus|vs|pros and cons|"
        r"trade-?offs?|advantages|disadvantages|analy[sz]e|evaluate|assess|weigh|argument\w*|plan|strategy|"
        r"schedule|step by step|conclude|conclusion|follow\w*|if|should i|better|cheaper|faster|which|"
        r"recommend\w*|estimate|logic\w*|puzzle|constraints?|reason\w*|why|"
        r"wenn|wie viele?|vergleich\w*|beweis\w*|vorteile|nachteile|begründe|analysiere|soll ich|"
        r"combien|compare|avantages|inconvénients|démontre|calcule|si un|"
        r"cuánt[oa]s?|compara|ventajas|desventajas|si tengo|conviene|"
        r"quanto|quanti|se oggi|confronta|calcola|hoeveel|vergelijk|als een|"
        r"сколько|сравни|докажи|если|вычисли"
    ),
    "conversation": (
        r"hi|hello|hey|thanks?|thank you|bye|goodbye|good (?:morning|evening|night|luck)|see you|sorry|"
        r"please|lol|haha\w*|wow|ok(?:ay)?|yes|no|hmm+|ugh|i'?m|i am|i feel|i had|my (?:boss|friend|sister|"
        r"brother|dog|cat|day)|are you|do you|can you|who are you|what'?s up|how are you|bored|lonely|sad|"
        r"happy|tired|nice to|"
        r"hallo|danke|guten|tschüss|mir ist|ich bin|wie geht|bonjour|salut|merci|ça va|bonne|je suis|"
        r"je m\w*|hola|gracias|buen[oa]s|adiós|estoy|me siento|ciao|grazie|come (?:va|stai)|buongiorno|"
        r"mi sento|oi|olá|obrigad[oa]|estou|hoi|dank|tot|привет|здравствуй\w*|спасибо|пока|мне|как дела"
    ),
    "factual": (
        r"what (?:is|are|was|were|does|causes|happens)|who|when|where|how (?:do|does|is|are|did|tall|far|"
        r"old|long)|which|explain|describe|define|tell me about|difference between|list|name the|capital|"
        r"history|causes?|meaning|overview|summar\w*|population|invented|discovered|wrote|founded|"
        r"was ist|was sind|wer|wann|wo|welche\w*|wie (?:funktioniert|heißt|hoch|entsteht)|erklär\w*|"
        r"qu'?est-ce|quel(?:le)?s?|qui|comment|explique|cuál(?:es)?|quién|qué|dónde|cómo|explica|"
        r"chi|qual è|quando|come funziona|quem|qual|wat is|wie|welke|кто|какая|какой|какие|"
        r"где|когда|что такое"
    ),
}
_SUBSTRINGS: dict[Kind, str] = {
    "code": (
        r"代码|函数|程序|数组|排序|コード|関数|配列|プログラム|`|\w+\(\w*\)|[{};]\s*$|=>|==|::|</?\w+>|"
        r"\w\.\w+\("
    ),
    "creative": r"写一[首个篇]|诗|故事|起个?名|物語|俳句|詩|名前を考えて|を書いて",
    "reasoning": r"多少|几个|比较|计算|いくつ|何個|何時間|計算|比べ|\d\s*[-+*/×÷^=%]\s*\d|\d\s*%",
    "conversation": (
        r"你好|谢谢|再见|晚安|我今天|こんにちは|おはよう|ありがとう|元気|疲れ|[:;]-?[)(DP]|!{2,}|\.{3}$"
    ),
    "factual": r"是什么|哪里|谁|什么时候|多[高长大]|どこ|誰|何です|なに|いつ",
}
CUES: dict[Kind, re.Pattern[str]] = {
    kind: re.compile(rf"(?<!\w)(?:{_WORDS[kind]})(?!\w)|{_SUBSTRINGS[kind]}", re.IGNORECASE | re.MULTILINE)
    for kind in KINDS
}

_FORM: dict[str, re.Pattern[str]] = {
    "fence": re.compile(r"```|`[^`]+`"),
    "brackets": re.compile(r"[{}\[\];<>]|\(\)|\w\("),
    "identifier": re.compile(
        r"\b[a-z]+(?:_[a-z]+)+\b|\b[a-z]+[A-Z]\w*\b|\b[A-Z]\w+[A-Z]\w*(?:Error|Exception)\b"
    ),
    "operator": re.compile(r"[=<>!]=|[-+*/^=]\s*\d|\d\s*[-+*/^=]"),
    "money": re.compile(r"%|€|\$|\b(?:euros?|dollars?|percent|prozent)\b", re.IGNORECASE),
    "unit": re.compile(
        r"\d\s*(?:km|m|cm|kg|g|l|h|hours?|minutes?|days?|years?|litres?|metres?)\b", re.IGNORECASE
    ),
    "asks": re.compile(r"[?？]\s*$"),
    "exclaims": re.compile(r"[!！]\s*$"),
    "first person": re.compile(
        r"\b(?:i|i'm|my|me|ich|mir|je|me|yo|io|mi|eu|ik|я|мне)\b|我|私", re.IGNORECASE
    ),
    "second person": re.compile(
        r"\b(?:you|your|du|dir|dich|tu|te|vas|stai|você|jij|je|ты|тебя)\b|你", re.IGNORECASE
    ),
    "imperative": re.compile(
        r"^\W*(?:please\s+)?(?:write|create|make|give|draft|compose|design|build|implement|generate|tell|invent|"
        r"schreib\w*|écris|escribe|scrivi|escreva|crie|schrijf|напиши|写)",
        re.IGNORECASE,
    ),
    "wh": re.compile(
        r"^\W*(?:who|whom|whose|what|when|where|which|how|why|is|are|does|did|wer|was|wann|wo|wie|qui|quel\w*|où|"
        r"comment|qué|quién|cuál|dónde|cómo|chi|che|dove|quem|qual|onde|wat|waar|кто|что|где|как\w*)\b",
        re.IGNORECASE,
    ),
    "list": re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE),
    "depth": re.compile(
        r"\b(?:in detail|detailed|thorough\w*|in depth|step by step|full|complete|several|every|each|"
        r"with tests?|explain|analy[sz]e|compare|evaluate|design|prove|justify|risks?|trade-?offs?|"
        r"long|chapters?|essay|report)\b",
        re.IGNORECASE,
    ),
}
NAMES: tuple[str, ...] = (
    *(f"cue {kind}" for kind in KINDS),
    *(f"begins {kind}" for kind in KINDS),
    *_FORM,
    *("digits", "words", "few words", "sentences", "no Latin"),
)

_BEGINNING = 24
"""Characters that count as the beginning of a query."""


def features(text: str) -> NDArray[np.float32]:
    """Return the surface features of `text`, one number of about 0 to 1 for each of `NAMES`."""
    words = len(text.split())
    beginning = text[:_BEGINNING]
    found = [min(3, len(CUES[kind].findall(text))) / 3 for kind in KINDS]
    found += [float(CUES[kind].search(beginning) is not None) for kind in KINDS]
    found += [float(pattern.search(text) is not None) for pattern in _FORM.values()]
    found += [
        min(5, sum(character.isdigit() for character in text)) / 5,
        math.log1p(words) / 4,
        float(words < 5),
        min(5, len(re.findall(r"[.!?。！？](?:\s|$)", text))) / 5,
        float(not any(character.isascii() and character.isalpha() for character in text)),
    ]
    return np.array(found, np.float32)
