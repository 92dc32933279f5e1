"""What the programs of a vote do on the examples that the question gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import Field, ValidationError

from orchestration.errors import OrchestraError
from orchestration.messages import Wire
from orchestration.patterns.consensus import ProgramExample, code_in, examples_of
from orchestration.patterns.run_context import RunContext

AGENT, TOOL = "code", "python"


class Outcome(Wire):
    """Of one example: the `repr` of what the call gave, or the error it raised."""

    value: str | None = None
    error: str = ""
    passed: bool


class Tried(Wire):
    """What the tool answers: an outcome for each example, in their order."""

    outcomes: tuple[Outcome, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Trial:
    """`key` is what the program did, `pass_rate` the share of the examples that it passed."""

    key: str
    pass_rate: float


class ProgramTests:
    """Of one run. Programs are run by the code agent's tool; where it has none, or the question gives no
    examples, nothing is tried."""

    def __init__(self, context: RunContext, question: str) -> None:
        self._context = context
        self._examples: Sequence[ProgramExample] | None = None
        self._question = question
        self._tried: dict[tuple[int, str], Trial | None] = {}

    async def of(self, voter: int, answer: str) -> Trial | None:
        """What the program of a voice does; None where it was not tried."""
        if self._examples is None:
            self._examples = await self._offered()
        if self._examples and (voter, answer) not in self._tried:
            self._tried[voter, answer] = await self._try(voter, answer, self._examples)
        return self._tried.get((voter, answer))

    def known(self, answer: str) -> Trial | None:
        """What a program did that was tried, whoever wrote it."""
        return next((trial for (_, text), trial in self._tried.items() if text == answer and trial), None)

    async def _offered(self) -> Sequence[ProgramExample]:
        """The examples, where there is a tool that tries them."""
        examples = examples_of(self._question)
        try:
            tools = await self._context.tools(AGENT) if examples else ()
        except OrchestraError:
            tools = ()
        return examples if any(tool.name == TOOL for tool in tools) else ()

    async def _try(self, voter: int, answer: str, examples: Sequence[ProgramExample]) -> Trial | None:
        again = sum(number == voter for number, _ in self._tried)
        name = f"voice {voter} / examples" + (f" {again + 1}" if again else "")
        arguments = {"code": code_in(answer), "examples": [asdict(example) for example in examples]}
        try:
            result = await self._context.use(AGENT, TOOL, arguments, name=name)
            if result.error:
                return None
            tried = Tried.model_validate(result.data)
        except (OrchestraError, ValidationError) as error:
            await self._context.progress(f"the program of voice {voter} was not tried: {error}")
            return None
        passed = sum(outcome.passed for outcome in tried.outcomes)
        done = [(outcome.value, outcome.error) for outcome in tried.outcomes]
        return Trial(json.dumps(done), passed / len(examples))
