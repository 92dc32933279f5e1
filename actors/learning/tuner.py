"""The agents' side of learning: chooses for `auto`, and gathers what runs teach."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from actors.bus.bus import Bus
from actors.bus.key_value import Conflict
from actors.learning.metrics import CHOICES, DEBATE_FLIPS, OBSERVATIONS_LOST
from actors.learning.record_store import RecordStore
from actors.learning.run_feedback import RunFeedback, run_feedback_bucket
from actors.learning.settings import LearningSettings
from orchestration.bandit.bandit import ArmChoice, best, choose, run_fraction
from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.messages import Run
from orchestration.patterns import RunContext, StepResult
from orchestration.patterns.auto import analyse_question
from orchestration.query_analysis.analysis import Analysis, default_weights
from orchestration.query_analysis.features import KINDS, Kind
from orchestration.query_analysis.profiles import Arm
from orchestration.trust.checks import check_of_form, checks_in
from orchestration.trust.observation import Observation, VoterAnswer
from orchestration.trust.records import KindRecord
from orchestration.trust.run_observations import answers_in, flip_in, is_observation, verdicts_in, verified_in
from orchestration.trust.trust import Trust

log = logging.getLogger(__name__)

FAILURE_WEIGHT = 1 / 3
"""What a way to answer that came to nothing counts, beside a user's word."""
MAX_WAITING = 2_000
"""Lessons of a kind that wait for the bus; the oldest go."""


class Tuner:
    """One for the agents of a process. Nothing here fails a run: what cannot be kept is not learnt."""

    def __init__(self, bus: Bus, settings: LearningSettings) -> None:
        self.settings = settings
        self.store = RecordStore(bus, settings.quality)
        self.runs = run_feedback_bucket(bus)
        self._waiting: dict[Kind, deque[Observation]] = {kind: deque(maxlen=MAX_WAITING) for kind in KINDS}
        self._flushing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises `BusUnavailable` when the bucket is not there."""
        await self.store.start()
        await asyncio.to_thread(default_weights)  # now, rather than in the way of the first run
        self._flushing = asyncio.get_running_loop().create_task(self._flush_for_ever())

    async def stop(self) -> None:
        """Leave what was learnt to others."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
            await self.flush()
        await self.store.stop()

    def of(self, run: Run, caller: str) -> RunAdvisor:
        return RunAdvisor(self, run, caller)

    def learn(self, kind: Kind, seen: Observation) -> None:
        """Add it at the next flush."""
        waiting = self._waiting[kind]
        if len(waiting) == MAX_WAITING:
            OBSERVATIONS_LOST.inc()
        waiting.append(seen)

    async def flush(self) -> None:
        for kind, waiting in self._waiting.items():
            observations = list(waiting)
            if not observations:
                continue
            waiting.clear()
            try:
                await self.store.add(kind, observations)
            except OrchestraError as error:
                room = MAX_WAITING - len(waiting)  # more may have come meanwhile
                OBSERVATIONS_LOST.inc(max(0, len(observations) - room))
                waiting.extendleft(reversed(observations[max(0, len(observations) - room) :]))
                log.info("%d lessons of kind %s wait: %s", len(waiting), kind, error)

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.flush_s)
            await self.flush()


class RunAdvisor:
    """Of one run: the `Advisor` of its context."""

    def __init__(self, tuner: Tuner, run: Run, caller: str) -> None:
        self.tuner = tuner
        self.run = run
        self.caller = caller
        self._chosen: ArmChoice | None = None
        self._kind: Kind | None = None

    @property
    def kind(self) -> Kind | None:
        """Of the question; None where nothing is asked."""
        if self._kind is None:
            try:
                self._kind = analyse_question(self.run.messages).kind
            except InvalidRequest:
                return None
        return self._kind

    def trust(self, kind: Kind | None = None) -> Trust:
        """How far each model is trusted at a kind of question, that of the run unless it is said; by what was
        known beforehand alone where nothing is learnt."""
        settings, kind = self.tuner.settings, kind or self.kind or "factual"
        if not settings.learn:
            return self.tuner.store.trust(kind, KindRecord())
        audit = run_fraction(self.run.id) < settings.explore
        return replace(self.tuner.store.trust(kind), learns=True, audit=audit)

    async def choose(self, run: Run, analysis: Analysis, arms: Sequence[Arm]) -> ArmChoice:
        """What was chosen for this run is written down before anything is done, so that who takes the run up
        does the same, whatever was learnt in between."""
        settings = self.tuner.settings
        self._kind = analysis.kind
        if not settings.learn:
            return best(arms)
        record = self.tuner.store.record(analysis.kind)
        chosen = choose(
            arms,
            record,
            run.id,
            explore=settings.explore,
            cost_weight=settings.cost_weight,
            trust=self.trust(),
        )
        self._chosen = await self._first(chosen, arms)
        CHOICES.labels(analysis.kind, self._chosen.arm.way).inc()
        return self._chosen

    async def _first(self, chosen: ArmChoice, arms: Sequence[Arm]) -> ArmChoice:
        """The choice that was written down first."""
        performed = self._performed(chosen.arm.pattern, chosen)
        try:
            await self.tuner.runs.put(self.run.id, performed.encoded(), last=0)
        except Conflict:
            return await self._known(arms) or chosen
        except OrchestraError as error:
            log.info("the choice for run %s is not kept: %s", self.run.id, error)
        return chosen

    async def _known(self, arms: Sequence[Arm]) -> ArmChoice | None:
        try:
            entry = await self.tuner.runs.get(self.run.id, sure=True)
            known = RunFeedback.model_validate_json(entry.value or b"") if entry is not None else None
        except (OrchestraError, ValidationError) as error:
            log.info("the choice for run %s cannot be read: %s", self.run.id, error)
            return None
        if known is None:
            return None
        arm = next((arm for arm in arms if arm.name == known.arm), None)
        if arm is None and known.model:  # it may no longer be among the most trusted
            ways = (arm for arm in arms if replace(arm, model=known.model).name == known.arm)
            arm = next((replace(arm, model=known.model) for arm in ways), None)
        return ArmChoice(arm, known.reason, known.audit) if arm is not None else None

    def failed(self, error: OrchestraError) -> None:
        if self._chosen is not None and self.kind is not None and is_observation(error):
            arm = self._chosen.arm
            answers = (VoterAnswer(model=arm.model, group=0),) if arm.model else ()
            seen = Observation(
                source="test", quality=0.0, weight=FAILURE_WEIGHT, answers=answers, arm=arm.name
            )
            self.tuner.learn(self.kind, seen)

    async def ended(self, context: RunContext, answer: StepResult, seconds: float) -> None:
        """Write down what the user's feedback will be about, and learn what the run itself teaches."""
        kind, flip = self.kind, flip_in(context.report.sections)
        if kind is not None and flip is not None:
            DEBATE_FLIPS.labels(kind, flip).inc()
        if kind is None or not self.tuner.settings.learn:
            return
        arm = self._chosen.arm.name if self._chosen is not None else None
        sections = context.report.sections
        answers, verdicts = answers_in(sections, answer.finish.model), verdicts_in(sections)
        usage = context.usage
        tokens = usage.prompt_tokens + usage.completion_tokens
        ran = Observation(answers=answers, arm=arm, tokens=tokens, seconds=seconds)
        verified = verified_in(context.report.sections)
        if verified is not None:
            ran = replace(ran, source="test", quality=verified)
        self.tuner.learn(kind, ran)
        for judge, verdict in verdicts.items():
            judged = Observation(source="judge", quality=verdict, answers=answers, arm=arm, judge=judge)
            self.tuner.learn(kind, judged)
        self._learn_checks(context, answer, kind, single=len(answers) == 1)
        pattern = self._chosen.arm.pattern if self._chosen is not None else self.run.pattern
        performed = self._performed(pattern, self._chosen)
        ended = performed.model_copy(
            update={"state": "ended", "answers": answers, "verdicts": verdicts, "flip": flip}
        )
        try:
            await self.tuner.runs.put(self.run.id, ended.encoded())
        except OrchestraError as error:
            log.info("feedback on run %s will find nothing: %s", self.run.id, error)

    def _learn_checks(self, context: RunContext, answer: StepResult, kind: Kind, *, single: bool) -> None:
        """What checks of the run's steps teach, beside that of its answer. A vote counts itself what meets no
        form."""
        checks = [check for check in checks_in(context.report.sections) if not check.is_of_answer]
        form = check_of_form(answer.text, answer.finish.model, self.run.guide, kind) if single else None
        for check in [*checks, *([form] if form is not None else [])]:
            self.tuner.learn(check.kind, check.observation)

    def _performed(self, pattern: str, chosen: ArmChoice | None) -> RunFeedback:
        return RunFeedback(
            run=self.run.id,
            caller=self.caller,
            kind=self.kind or "factual",
            pattern=pattern,
            arm=chosen.arm.name if chosen is not None else "",
            model=chosen.arm.model if chosen is not None else "",
            audit=chosen is not None and chosen.audit,
            reason=chosen.reason if chosen is not None else "",
        )
