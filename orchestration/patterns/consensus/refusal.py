"""Texts that refuse to answer, and sentences that say that no answer can be given."""

from __future__ import annotations

import re

MAX_WORDS, MAX_CHARS = 40, 240
"""A longer text goes on to answer. A refusal stands within the first `MAX_CHARS` characters."""

_HELPS = (
    r"(?:help|assist|answer|provide|comply|fulfil+|do (?:that|this)|discuss|share|support|engage|respond|"
    r"continue|create|generate|write|give|offer|participate)"
)
_REFUSES = re.compile(
    rf"\bI(?:\s*['’]m|\s+am)?\s+(?:really |very |just |simply )?(?:can\s?not|can['’]t|won['’]t|will not|"
    rf"not able to|unable to|must decline|have to decline|decline)\b[^.!?\n]{{0,40}}\b{_HELPS}|"
    rf"\bI (?:must|have to|will have to) (?:decline|refuse)\b|"
    r"\bkann (?:ich )?(?:[\w,]+ ){0,6}nicht (?:\w+ )?(?:helfen|beantworten|weiterhelfen|unterstützen)\b|"
    r"\bje ne (?:peux|puis) pas\b[^.!?\n]{0,30}\b(?:aider|répondre|fournir)\b|"
    r"\bno puedo\b[^.!?\n]{0,30}\b(?:ayudar\w*|responder|proporcionar)\b|"
    r"\bnon posso\b[^.!?\n]{0,30}\b(?:aiutar\w*|rispondere|fornire)\b|"
    r"\bnão posso\b[^.!?\n]{0,30}\b(?:ajudar|responder|fornecer)\b|"
    r"\bkan (?:ik )?(?:\w+ ){0,4}niet (?:\w+ )?(?:helpen|beantwoorden)\b|"
    r"我?(?:无法|不能)(?:提供|帮助|回答|协助)",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"\b(?:can\s?not|can['’]t|could not|unable to|impossible to) (?:be )?(?:determined?|answer(?:ed)?|"
    r"calculated?|find|found|"
    r"provided?|say|tell|know|solved?|help|assist)\b|\bnot enough information\b|\binsufficient (?:data|"
    r"information)\b|"
    r"\bI (?:don['’]t|do not) know\b|\bnicht (?:beantworten|bestimm\w+|möglich)\b|\bne peux pas\b|"
    r"\bno (?:puedo|se puede)\b|"
    r"\bnon (?:posso|è possibile)\b|\bnão (?:posso|é possível)\b|\bkan (?:ik )?niet\b",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether a short text says that its writer cannot or will not help."""
    return len(text.split()) <= MAX_WORDS and _REFUSES.search(text[:MAX_CHARS]) is not None


def says_unknown(sentence: str) -> bool:
    """Whether a sentence says that the answer cannot be given or determined."""
    return _UNKNOWN.search(sentence) is not None
