"""Estimates how often a model is right before any answer of it was judged: from settings, a table, or its
size.

`published.toml` holds the published results of well-known models at MMLU-Pro, MATH and HumanEval, with
sources. A model that is not in the table is placed by its nearest relatives: between two sizes on a line over
the logarithm of the size, otherwise at the newest generation that is not newer than the model, shifted by the
tier word ("mini", "pro") in its name. For an unknown family only the size counts.
"""

from __future__ import annotations

import math
import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache, lru_cache
from importlib import resources
from operator import add, sub

from orchestration.query_analysis.features import Kind
from orchestration.trust.families import (
    CLOSED_FAMILIES,
    MAX_CACHED_NAMES,
    MAX_CHARACTERS,
    TIERS,
    ModelName,
    parse_name,
    tier_of,
)

MIN_PRIOR, MAX_PRIOR = 0.05, 0.97
"""Bounds of every prior, because no model is always right or always wrong."""
UNKNOWN_PRIOR = 0.6
"""The prior of a model whose name and size say nothing."""
BY_SIZE = "size"
"""The name of the table rows that describe common models by size."""

Quality = Mapping[str, float | Mapping[Kind, float]]
"""Shares of right answers by model name, exact or with `*` and `?`; one share for all kinds, or one per
kind."""

_TIER_STEP = 0.5
"""Logits between "mini", the middle and "pro": about the distance between known siblings."""
_MAX_ABOVE_SIZE = 1.5
"""Logits by which an estimate may be above the usual value for the size in the name."""
_OLDER_SHIFT = -0.5
"""Logits by which a generation that is older than all known ones is below the oldest."""

Logits = tuple[float, float, float]
"""Logits of the results at MMLU-Pro, MATH and HumanEval."""

_SPECIAL: dict[str, Logits] = {
    "coder": (-0.3, -0.2, 0.4),
    "code": (-0.3, -0.2, 0.4),
    "codex": (0.0, 0.0, 0.2),
    "math": (-0.1, 0.5, -0.3),
    "thinking": (0.3, 0.8, 0.2),
    "think": (0.3, 0.8, 0.2),
    "reasoning": (0.3, 0.8, 0.2),
    "reasoner": (0.3, 0.8, 0.2),
    "base": (-0.2, -0.3, -0.5),
    "verification": (0.8, 1.0, 0.5),  # the best of 100 by a verifier (Cobbe et al. 2021)
}
"""How much a variant differs from its plain sibling if the table holds none like it."""


@dataclass(slots=True)
class _Siblings:
    """Models of one line, generation and variant by size, and the one without a size in its name."""

    version: tuple[int, ...]
    marks: frozenset[str]
    sizes: list[float] = field(default_factory=list)
    shares: list[Logits] = field(default_factory=list)
    unsized: Logits | None = None

    def at(self, size: float) -> Logits:
        """Return the result for a size in billions; a larger model is never lower. Without a size, the model
        without a size in its name is used, otherwise the one nearest to 8 billion, which hubs usually
        mean."""
        if not size:
            if self.unsized is not None:
                return self.unsized
            return min(
                zip(self.sizes, self.shares, strict=True), key=lambda pair: abs(math.log(pair[0] / 8))
            )[1]
        if not self.sizes:
            assert self.unsized is not None
            return _each(min, self.unsized, _above(size))
        if size <= self.sizes[0]:
            return _rescale(self.shares[0], self.sizes[0], size)
        if size >= self.sizes[-1]:
            return _rescale(self.shares[-1], self.sizes[-1], size)
        upper = bisect_right(self.sizes, size)
        low, high = self.sizes[upper - 1], self.sizes[upper]
        part = math.log(size / low) / math.log(high / low)
        return _between(self.shares[upper - 1], self.shares[upper], part)


def default_accuracy(model: str, kind: Kind, quality: Quality | None = None, parameters: int = 0) -> float:
    """Return the expected share of right answers of `model` at a kind of question, from 0.05 to 0.97.

    `quality` is the configured share, which goes before all else. `parameters` is the number of parameters on
    the model card, for names without a size (0 if unknown). The result is 0.6 if nothing is known.
    """
    share = _configured(model, kind, quality) if quality else None
    if share is None:
        share = _expected(model[:MAX_CHARACTERS], kind, max(0, parameters))
    return min(MAX_PRIOR, max(MIN_PRIOR, share))


def _configured(model: str, kind: Kind, quality: Quality) -> float | None:
    """Return the configured share: of the exact name first, then of the pattern with the most literal
    characters."""
    name = model.lower()
    names = {name, name[: name.index("@", 1)]} if "@" in name[1:] else {name}
    found: tuple[bool, int, float] | None = None
    for pattern, value in quality.items():
        share = value.get(kind) if isinstance(value, Mapping) else value
        if share is None or not any(_matches(one, pattern.lower()) for one in names):
            continue
        rank = (pattern.lower() in names, len(pattern) - sum(map(pattern.count, "*?")), share)
        found = rank if found is None else max(found, rank)
    return found and found[2]


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or _compiled(pattern).match(name) is not None


@lru_cache(maxsize=MAX_CACHED_NAMES)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern.replace("[", "[[]")))


@lru_cache(maxsize=MAX_CACHED_NAMES)
def _expected(model: str, kind: Kind, parameters: int) -> float:
    name = parse_name(model)
    size = name.size or parameters / 1e9
    relatives = _lines().get(name.line or name.family)
    if relatives and name.family != BY_SIZE:
        return _share(_placed(name, size, relatives), kind)
    if not size:
        return UNKNOWN_PRIOR
    return _share(_common(math.sqrt(size * name.active) if name.active else size), kind)


def _placed(name: ModelName, size: float, relatives: list[_Siblings]) -> Logits:
    """Return the result of the nearest known relatives, adjusted for the differences of the names."""
    known = TIERS.keys() | _SPECIAL.keys() | {mark for one in relatives for mark in one.marks}
    marks = name.marks & known
    version = name.version
    if exact := next((one for one in relatives if (one.version, one.marks) == (version, marks)), None):
        return exact.at(size)
    if not version and name.family in CLOSED_FAMILIES:
        version = max(one.version for one in relatives)  # a name without a version means the current one
    if size and any(one.sizes for one in relatives):
        relatives = [one for one in relatives if one.sizes]
    older = [one for one in relatives if one.version <= version]
    if not older:
        oldest = min(one.version for one in relatives)
        guess = _beside([one for one in relatives if one.version == oldest], marks, size, _OLDER_SHIFT)
    else:
        newest = max(one.version for one in older)
        guess = _beside([one for one in older if one.version == newest], marks, size)
        if alike := [one for one in older if one.marks == marks]:  # "gpt-6-mini" is not below "gpt-5-mini"
            guess = _each(max, guess, max(alike, key=lambda one: one.version).at(size))
    return guess


def _beside(generation: list[_Siblings], marks: frozenset[str], size: float, shift: float = 0) -> Logits:
    """Estimate from the siblings whose special words are nearest to `marks`; between two tiers on a line, as
    for sizes."""
    special = marks - TIERS.keys()
    fewest = min(len((one.marks - TIERS.keys()) ^ special) for one in generation)
    tiers: dict[float, Logits] = {}
    highest: Logits | None = None
    nearest = [one for one in generation if len((one.marks - TIERS.keys()) ^ special) == fewest]
    for one in sorted(nearest, key=lambda one: tier_of(one.marks)):
        found = one.at(size)
        highest = found if highest is None else _each(max, highest, found)
        tiers[tier_of(one.marks)] = highest
    wanted = tier_of(marks)
    low = max((tier for tier in tiers if tier <= wanted), default=min(tiers))
    high = min((tier for tier in tiers if tier >= wanted), default=max(tiers))
    if low < wanted < high:
        found = _between(tiers[low], tiers[high], (wanted - low) / (high - low))
    else:
        shift += _TIER_STEP * (wanted - low)
        found = tiers[low]
    for mark in sorted(special.difference(*(one.marks for one in nearest))):
        found = _each(add, found, _SPECIAL.get(mark, (0.0, 0.0, 0.0)))
    return _each(add, found, (shift, shift, shift))


def _share(logits: Logits, kind: Kind) -> float:
    """Convert exam results to the expected share. Exams are harder than usual questions, so the logits are
    multiplied by 0.8 and shifted. The constants put models of 2024 at their share in MMLU (factual) and
    between MATH and GSM8K (reasoning)."""
    knowledge, mathematics, code = logits
    if kind == "reasoning":
        return _sigmoid(0.4 * (knowledge + mathematics) + 0.8)
    if kind == "code":
        return _sigmoid(0.8 * code)
    return _sigmoid(0.8 * knowledge + 0.9)


@cache
def _lines() -> dict[str, list[_Siblings]]:
    """Return the published table by line. The first call takes 25 ms."""
    text = resources.files("orchestration.trust").joinpath("published.toml").read_text("utf-8")
    groups: dict[tuple[str, tuple[int, ...], frozenset[str]], _Siblings] = {}
    rows = {
        parse_name(model): shares for table in tomllib.loads(text).values() for model, shares in table.items()
    }
    for name, shares in sorted(rows.items(), key=lambda row: row[0].size):
        line = name.line or name.family
        group = groups.setdefault((line, name.version, name.marks), _Siblings(name.version, name.marks))
        knowledge, mathematics, code = (math.log(share / (100 - share)) for share in shares)
        if name.size:
            group.sizes.append(name.size)
            group.shares.append((knowledge, mathematics, code))
        else:
            group.unsized = (knowledge, mathematics, code)
    lines: dict[str, list[_Siblings]] = {}
    for (line, _, _), group in groups.items():
        lines.setdefault(line, []).append(group)
    return lines


def _common(size: float) -> Logits:
    """Return the result of a common model of that size, in billions."""
    (group,) = _lines()[BY_SIZE]
    size = min(group.sizes[-1], max(group.sizes[0], size))
    return group.at(size)


def _rescale(shares: Logits, of: float, to: float) -> Logits:
    """Move a result from one size to another by the difference between common models of these sizes."""
    if of == to:
        return shares
    change = _each(sub, _common(to), _common(of))
    return _each(add, shares, change)


def _between(one: Logits, other: Logits, part: float) -> Logits:
    return _each(lambda low, high: low + part * (high - low), one, other)


def _above(size: float) -> Logits:
    return _each(add, _common(size), (_MAX_ABOVE_SIZE, _MAX_ABOVE_SIZE, _MAX_ABOVE_SIZE))


def _each(call: Callable[[float, float], float], one: Logits, other: Logits) -> Logits:
    return call(one[0], other[0]), call(one[1], other[1]), call(one[2], other[2])


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
