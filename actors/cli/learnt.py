"""The results of one kind of question that `auto` learns from, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from orchestration.query_analysis.features import Kind
from orchestration.trust.counts import Counts, ShareEstimate
from orchestration.trust.families import family_of
from orchestration.trust.observation import Source
from orchestration.trust.records import Cost, KindRecord
from orchestration.trust.trust import PAIR_PRIOR, PAIR_STRENGTH, Trust, judge_reliability

SOURCES: tuple[Source, ...] = ("user", "test", "judge", "vote")


class LearnedKind:
    """The record of one kind of question, and the trust in models that follows from it."""

    def __init__(self, kind: Kind, record: KindRecord, trust: Trust) -> None:
        self.kind = kind
        self.record = record
        self.trust = trust

    def as_json(self) -> dict[str, Any]:
        """The record, and what follows from it: `ways`, `trust` and `judged` (the most trusted first),
        `copies`, and `vote_vs_best_text`, which is `vote_vs_best` in words."""
        return self.record.model_dump() | {
            "ways": list(self._ways()),
            "trust": list(self._models()),
            "judged": list(self._judges()),
            "copies": list(self._copies()),
            "vote_vs_best_text": self.vote_vs_best_text(),
        }

    def vote_vs_best_text(self) -> str:
        """The results of votes that differed from their most trusted voter, in words; '' without any."""
        counts = self.record.vote_vs_best
        if counts.total < 0.05:
            return ""
        text = (
            f"{self.kind}: where a vote differed from its most trusted voter, the vote was right in "
            f"{counts.right:.1f} judged answers and that voter in {counts.wrong:.1f}"
        )
        return f"{text}: that voter is asked alone" if self.trust.prefers_best else text

    def add_to(self, tables: dict[str, Table]) -> None:
        """Add rows to `tables`."""
        for way in self._ways():
            tables["ways"].add_row(
                self.kind,
                way["way"],
                way["model"] or "-",
                _percent(way["good"]),
                f"{way['judgements']:.1f}",
                str(way["runs"]),
                f"{way['tokens']:.0f}",
                f"{way['seconds']:.1f}",
            )
        for model in self._models():
            tables["models"].add_row(
                self.kind,
                model["model"],
                model["family"] or "-",
                *_interval(model),
                _percent(model["prior"]),
                *(f"{model['evidence'].get(source, {}).get('total', 0.0):.1f}" for source in SOURCES),
                f"{model['weight']:.2f}",
            )
        for judge in self._judges():
            tables["judges"].add_row(self.kind, judge["judge"], *_interval(judge), f"{judge['words']:.1f}")
        for pair in self._copies():
            row = (pair["model"], pair["answers_as"], *_interval(pair), f"{pair['votes']:.1f}")
            tables["copies"].add_row(self.kind, *row)

    def _ways(self) -> Iterator[dict[str, Any]]:
        names = sorted({*self.record.arms, *self.record.costs}, key=lambda name: -self._good(name)[0])
        for name in names:
            way, model = _parted(name)
            good, judgements = self._good(name)
            cost = self.record.costs.get(name, Cost())
            yield {
                "way": way,
                "model": model,
                "good": good if judgements else None,
                "judgements": judgements,
                "runs": cost.runs,
                "tokens": cost.tokens,
                "seconds": cost.seconds,
            }

    def _good(self, name: str) -> tuple[float, float]:
        """The share of good answers of a way, and the number of judgements. For a model that answers alone,
        all judgements of that model count."""
        model = _parted(name)[1]
        counts = self.record.arm(name)
        if model:
            judged = [each for source, each in self._sources(model).items() if source != "vote"]
            return self.trust.accuracy(model).mean, sum(each.total for each in judged)
        return counts.right / counts.total if counts.total else 0.0, counts.total

    def _sources(self, model: str) -> dict[Source, Counts]:
        return self.record.models.get(model, {})

    def _models(self) -> Iterator[dict[str, Any]]:
        shares = {name: self.trust.accuracy(name) for name in self.record.models}
        for name in sorted(shares, key=lambda name: (-shares[name].mean, name)):
            yield {
                "model": name,
                "family": family_of(name),
                **_bounds(shares[name]),
                "prior": self.trust.prior(name),
                "weight": self.trust.weight(name),
                "evidence": {
                    source: counts.model_dump() | {"total": counts.total}
                    for source, counts in self._sources(name).items()
                },
            }

    def _judges(self) -> Iterator[dict[str, Any]]:
        shares = {name: judge_reliability(self.record.judges, name) for name in self.record.judges}
        for name in sorted(shares, key=lambda name: (-shares[name].mean, name)):
            yield {"judge": name, **_bounds(shares[name]), "words": self.record.judges[name].total}

    def _copies(self) -> Iterator[dict[str, Any]]:
        for pair, counts in sorted(self.record.pairs.items()):
            one, _, other = pair.partition("\n")
            if self.trust.are_copies(one, other):
                share = counts.share(PAIR_PRIOR, PAIR_STRENGTH)
                yield {"model": one, "answers_as": other, **_bounds(share), "votes": counts.total}


def tables() -> dict[str, Table]:
    """The tables, without rows."""
    all_tables = {
        "ways": Table("kind", "profile/pattern", "model", "good", "judgements", "runs", "tokens", "seconds"),
        "models": Table(
            *("kind", "model", "family", "right", "95 % interval", "beforehand"),
            *("users", "tests", "judges", "votes", "weight"),
        ),
        "judges": Table("kind", "judge", "as users say", "95 % interval", "words"),
        "copies": Table(
            "kind", "model", "answers as", "agreed where others did not", "95 % interval", "votes"
        ),
    }
    for table in all_tables.values():
        table.box, table.pad_edge = None, False
    return all_tables


def _parted(name: str) -> tuple[str, str]:
    """The way, PROFILE/PATTERN, and the model if it answers alone, else ''."""
    profile, pattern, model = (*name.split("/", 2), "", "")[:3]
    return (f"{profile}/{pattern}" if pattern else profile), model


def _bounds(share: ShareEstimate) -> dict[str, float]:
    return {"mean": share.mean, "low": share.low, "high": share.high}


def _interval(share: dict[str, Any]) -> tuple[str, str]:
    return f"{share['mean']:.0%}", f"{share['low']:.0%} to {share['high']:.0%}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
