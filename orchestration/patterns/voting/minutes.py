"""The minutes of a vote: what is told of it to who watches, to the caller, and to programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import BudgetSpent, OrchestraError
from orchestration.patterns.clipping import beginning, clip
from orchestration.patterns.consensus import TEST, Kind, Tally
from orchestration.patterns.stage import Stage
from orchestration.patterns.voting.crowd import Crowd
from orchestration.patterns.voting.urn import Urn
from orchestration.patterns.voting.voices import Voice

SAID_TOKENS = 100
"""Of each answer in the report; the steps have them whole."""
QUOTED_TOKENS = 20
"""Of each answer that a note quotes."""
_LACKS = {
    Kind.NUMBER: "names no number",
    Kind.CHOICE: "takes none of the options",
    Kind.CODE: "holds no program",
    Kind.EXACT: "says nothing that can be compared",
    Kind.TEXT: "says nothing",
}


@dataclass(slots=True)
class Minutes:
    """Of one run; `title` names its part of the report."""

    stage: Stage
    title: str
    voices: Sequence[Voice]
    confidence: float
    failures: dict[int, OrchestraError] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    """Tokens that each voice has written so far."""
    stands: float = 0.0
    """The probability that the leader's lead lasts, as of the latest count."""

    def failed(self, voice: Voice, error: OrchestraError) -> None:
        self.failures[voice.number] = error

    async def counted(self, tally: Tally, urn: Urn, out: Sequence[Voice]) -> None:
        """Some have voted."""
        self.stands = tally.stands([voice.weight for voice in out])
        await self.stage.event(
            "vote",
            answer_kind=tally.kind,
            voices=len(self.voices),
            voted=len(urn.answers),
            parties=[list(party.voices) for party in tally.parties],
            agreement=round(tally.agreement, 3),
            stands=round(self.stands, 3),
        )
        if tally.leader is not None:
            lasting = f"; that stays the answer with probability {self.stands:.2f}" if out else ""
            await self.stage.progress(
                f"vote: {len(tally.leader.voices)} of {len(urn.answers)} voices agree, "
                f"{len(out)} still to come{lasting}"
            )

    async def close(self, tally: Tally, urn: Urn, crowd: Crowd, *, spoiled: bool) -> None:
        """The vote is over. `spoiled` says that no answer was one to this question."""
        by_number = {voice.number: voice for voice in self.voices}
        for number, error in self.failures.items():
            if not isinstance(error, BudgetSpent):  # the stage says so itself
                await self.stage.note(f"went on without {by_number[number]}: {error.message}")
        guided = self.stage.run.guide is not None
        lacks = "does not meet the form that is asked for" if guided else _LACKS[tally.kind]
        if spoiled:
            await self.stage.note("no voice's answer could be counted; what most of them say was taken")
        for number in () if spoiled else tally.spoiled:
            await self.stage.note(f"not counted: the answer of {by_number[number]} {lacks}")
        counted = sum(len(party.voices) for party in tally.parties)
        if counted == 1 and len(self.voices) > 1:
            await self.stage.note("one voice alone could be counted: its answer was compared with no other")
        elif counted > 1 and len(tally.parties) == counted:
            await self.stage.note(f"no two of {counted} voices agree")
        elif len(tally.parties) > 1:
            others = "; ".join(
                f"“{beginning(urn.answers[party.spokesman].text, QUOTED_TOKENS)}”"
                for party in tally.parties[1:]
            )
            await self.stage.note(
                f"{len(tally.parties[0].voices)} of {counted} voices agree; others: {others}"
            )
        self.stage.report[self.title] = self._report(tally, urn, crowd)

    def _report(self, tally: Tally, urn: Urn, crowd: Crowd) -> dict[str, Any]:
        leader = tally.parties[0]
        quiet = [*crowd.cut, *crowd.silent]
        examples = {"examples_passed": round(leader.merit, 3)} if leader.merit is not None else {}
        return examples | {
            "kind": tally.kind,
            "answer": urn.answers[leader.spokesman].text.strip(),
            "agreement": round(tally.agreement, 3),
            "voices": [self._of(voice, tally, urn, stopped=voice in quiet) for voice in self.voices],
            "dissent": [
                {
                    "answer": clip(urn.answers[party.spokesman].text, SAID_TOKENS),
                    "voices": list(party.voices),
                    "weight": round(party.weight, 3),
                }
                for party in tally.parties[1:]
            ],
            "stopped_early": bool(quiet),
            "test": {"name": TEST, "confidence": self.confidence, "probability": round(self.stands, 3)},
            "calls_cut": len(quiet),
            "tokens_saved": self._saved(urn, quiet),
        }

    def _of(self, voice: Voice, tally: Tally, urn: Urn, *, stopped: bool) -> dict[str, Any]:
        said: dict[str, Any] = {
            "voice": voice.number,
            "model": voice.model or "",
            "node": "",
            "answer": "",
            "agrees": False,
            "weight": round(voice.weight, 3),
        }
        answer = urn.answers.get(voice.number)
        if answer is not None:
            said |= {"model": answer.model, "node": answer.node, "answer": clip(answer.text, SAID_TOKENS)}
            said["agrees"] = voice.number in tally.parties[0].voices
            said["tokens"] = answer.usage.completion_tokens
        elif voice.number in self.failures:
            said["error"] = self.failures[voice.number].code
        elif stopped:
            said |= {"stopped": True, "tokens": self.written.get(voice.number, 0)}
        return said

    def _saved(self, urn: Urn, quiet: Sequence[Voice]) -> int:
        """Tokens that the voices which were stopped, or never begun, would still have written: an estimate.

        Those that end first are the short ones, so their mean says too little. Lengths are taken to be
        exponential, those of stopped voices known from below (Epstein and Sobel, JASA 48, 1953): the mean
        is what all have written, by the number of those that ended; and as much is still to come of any that
        speaks, up to its limit.
        """
        ended = [answer.usage.completion_tokens for answer in urn.answers.values()]
        so_far = {voice.number: self.written.get(voice.number, 0) for voice in quiet}
        mean = (sum(ended) + sum(so_far.values())) / len(ended)
        left = (
            min(mean, (voice.sampling.max_tokens or mean + so_far[voice.number]) - so_far[voice.number])
            for voice in quiet
        )
        return round(sum(max(0.0, each) for each in left))
