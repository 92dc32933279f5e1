"""Redacts and cuts prompts, answers and arguments of tools before they are exported."""

from __future__ import annotations

import re
from collections.abc import Sequence

DEFAULT_PATTERNS = (
    r"(?i)\bbearer\s+[a-z0-9._~+/=-]{8,}",
    r"\b(?:sk|pk|rk|key|api|ghp|gho|ghs|xox[abp])[-_][A-Za-z0-9_-]{12,}",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"(?i)\b(?:api[_-]?key|token|secret|password|passwd|pwd)\b[\"']?\s*[:=]\s*[\"']?[^\s\"',;}]{4,}",
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
)
"""Bearer tokens, API keys of common forms, named secrets, passwords in URLs, JSON web tokens, private
keys."""
REDACTED = "[redacted]"


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Raises ValueError, which names the pattern, for one that is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern[:80]!r} is not a regular expression: {error}") from error


class Redactor:
    """Redacts and cuts content. `limit` is the maximum number of characters of a result."""

    def __init__(self, patterns: Sequence[str], limit: int) -> None:
        self.limit = limit
        self._patterns = [compile_pattern(pattern) for pattern in patterns]

    def redact(self, text: str) -> str:
        """The text without secrets, cut at the limit. A secret across the cut is redacted too: more than the
        limit is searched."""
        text = text[: self.limit + 4096]
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        return text if len(text) <= self.limit else text[: self.limit] + "…"
