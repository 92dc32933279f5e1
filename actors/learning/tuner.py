"""The agents' side of learning: chooses arms for `auto`, and collects the observations of runs."""

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
"""The weight of a failed arm, relative to a user rating."""
MAX_WAITING = 2_000
"""Observations of a kind that wait for the bus; the oldest are dropped."""


class Tuner:
    """Shared by the agents of a process. Its failures never fail a run; they only lose observations."""

    def __init__(self, bus: Bus, settings: LearningSettings) -> None:
        self.settings = settings
        self.store = RecordStore(bus, settings.quality)
        self.runs = run_feedback_bucket(bus)
        self._waiting: dict[Kind, deque[Observation]] = {kind: deque(maxlen=MAX_WAITING) for kind in KINDS}
        self._flushing: asyncio.Task[None] | None = None

    def update_settings(self, settings: LearningSettings) -> None:
        """Use other settings for runs from now on."""
        self.settings = settings
        self.store.use_quality(settings.quality)

    async def start(self) -> None:
        """Raises `BusUnavailable` if the bucket does not exist."""
        await self.store.start()
        await asyncio.to_thread(default_weights)  # loads them now, so that the first run need not wait
        self._flushing = asyncio.get_running_loop().create_task(self._flush_regularly())

    async def stop(self) -> None:
        """Write the waiting observations, and stop."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
            await self.flush()
        await self.store.stop()

    def advisor(self, run: Run, caller: str) -> RunAdvisor:
        return RunAdvisor(self, run, caller)

    def learn(self, kind: Kind, observation: Observation) -> None:
        """Add the observation at the next flush."""
        waiting = self._waiting[kind]
        if len(waiting) == MAX_WAITING:
            OBSERVATIONS_LOST.inc()
        waiting.append(observation)

    async def flush(self) -> None:
        for kind, waiting in self._waiting.items():
            observations = list(waiting)
            if not observations:
                continue
            waiting.clear()
            try:
                await self.store.add(kind, observations)
            except OrchestraError as error:
                room = MAX_WAITING - len(waiting)  # more may have arrived meanwhile
                OBSERVATIONS_LOST.inc(max(0, len(observations) - room))
                waiting.extendleft(reversed(observations[max(0, len(observations) - room) :]))
                log.info("%d observations of kind %s are waiting: %s", len(waiting), kind, error)

    async def _flush_regularly(self) -> None:
        while True:
            await asyncio.sleep(self.settings.flush_s)
            await self.flush()


class RunAdvisor:
    """The `Advisor` of one run."""

    def __init__(self, tuner: Tuner, run: Run, caller: str) -> None:
        self.tuner = tuner
        self.run = run
        self.caller = caller
        self._chosen: ArmChoice | None = None
        self._kind: Kind | None = None

    @property
    def kind(self) -> Kind | None:
        """The kind of the question. None if the run has no question."""
        if self._kind is None:
            try:
                self._kind = analyse_question(self.run.messages).kind
            except InvalidRequest:
                return None
        return self._kind

    def trust(self, kind: Kind | None = None) -> Trust:
        """Return the trust in models at a kind of question, by default that of the run. Without learning it
        follows from priors alone."""
        settings, kind = self.tuner.settings, kind or self.kind or "factual"
        if not settings.learn:
            return self.tuner.store.trust(kind, KindRecord())
        audit = run_fraction(self.run.id) < settings.explore
        return replace(self.tuner.store.trust(kind), learns=True, audit=audit)

    async def choose(self, run: Run, analysis: Analysis, arms: Sequence[Arm]) -> ArmChoice:
        """Choose an arm, and record it before anything is done: a coordinator that resumes the run then uses
        the same arm, whatever was learnt meanwhile."""
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
        self._chosen = await self._record_choice(chosen, arms)
        CHOICES.labels(analysis.kind, self._chosen.arm.strategy).inc()
        return self._chosen

    async def _record_choice(self, chosen: ArmChoice, arms: Sequence[Arm]) -> ArmChoice:
        """Record the choice, and return the one that was recorded first."""
        entry = self._run_feedback(chosen.arm.pattern, chosen)
        try:
            await self.tuner.runs.put(self.run.id, entry.encoded(), last=0)
        except Conflict:
            return await self._recorded_choice(arms) or chosen
        except OrchestraError as error:
            log.info("cannot record the choice for run %s: %s", self.run.id, error)
        return chosen

    async def _recorded_choice(self, arms: Sequence[Arm]) -> ArmChoice | None:
        try:
            entry = await self.tuner.runs.get(self.run.id, sure=True)
            known = RunFeedback.model_validate_json(entry.value or b"") if entry is not None else None
        except (OrchestraError, ValidationError) as error:
            log.info("cannot read the choice for run %s: %s", self.run.id, error)
            return None
        if known is None:
            return None
        arm = next((arm for arm in arms if arm.name == known.arm), None)
        if arm is None and known.model:  # the model may no longer be a candidate
            matches = (arm for arm in arms if replace(arm, model=known.model).name == known.arm)
            arm = next((replace(arm, model=known.model) for arm in matches), None)
        return ArmChoice(arm, known.reason, known.audit) if arm is not None else None

    def failed(self, error: OrchestraError) -> None:
        if self._chosen is not None and self.kind is not None and is_observation(error):
            arm = self._chosen.arm
            answers = (VoterAnswer(model=arm.model, group=0),) if arm.model else ()
            observation = Observation(
                source="test", quality=0.0, weight=FAILURE_WEIGHT, answers=answers, arm=arm.name
            )
            self.tuner.learn(self.kind, observation)

    async def ended(self, context: RunContext, answer: StepResult, seconds: float) -> None:
        """Record the entry that feedback will need, and learn what the run itself shows."""
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
        observation = Observation(answers=answers, arm=arm, tokens=tokens, seconds=seconds)
        verified = verified_in(context.report.sections)
        if verified is not None:
            observation = replace(observation, source="test", quality=verified)
        self.tuner.learn(kind, observation)
        for judge, verdict in verdicts.items():
            judged = Observation(source="judge", quality=verdict, answers=answers, arm=arm, judge=judge)
            self.tuner.learn(kind, judged)
        self._learn_checks(context, answer, kind, single=len(answers) == 1)
        pattern = self._chosen.arm.pattern if self._chosen is not None else self.run.pattern
        entry = self._run_feedback(pattern, self._chosen)
        ended = entry.model_copy(
            update={"state": "ended", "answers": answers, "verdicts": verdicts, "flip": flip}
        )
        try:
            await self.tuner.runs.put(self.run.id, ended.encoded())
        except OrchestraError as error:
            log.info("feedback on run %s will be refused: %s", self.run.id, error)

    def _learn_checks(self, context: RunContext, answer: StepResult, kind: Kind, *, single: bool) -> None:
        """Learn from the checks of steps, except that of the answer. The form is checked for `single`
        answers; a vote counts answers with a wrong form itself."""
        checks = [check for check in checks_in(context.report.sections) if not check.is_of_answer]
        form = check_of_form(answer.text, answer.finish.model, self.run.guide, kind) if single else None
        for check in [*checks, *([form] if form is not None else [])]:
            self.tuner.learn(check.kind, check.observation)

    def _run_feedback(self, pattern: str, chosen: ArmChoice | None) -> RunFeedback:
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
