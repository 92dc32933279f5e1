"""Tests the programs of a vote on the examples in the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.patterns.code_check import ProgramCheck, program_check
from orchestration.patterns.consensus import ProgramExample, code_in, examples_of
from orchestration.patterns.run_context import RunContext

AGENT, TOOL = "code", "python"


class ProgramTests:
    """Tests the programs of one run with the code agent's tool. Where it has no such tool, or the question
    gives no examples, no program is tested."""

    def __init__(self, context: RunContext, question: str) -> None:
        self._context = context
        self._examples: Sequence[ProgramExample] | None = None
        self._question = question
        self._tested: dict[tuple[int, str], ProgramCheck | None] = {}

    async def of(self, voter: int, answer: str) -> ProgramCheck | None:
        """The test of a voter's program; None where it was not tested."""
        if self._examples is None:
            self._examples = examples_of(self._question)
        if self._examples and (voter, answer) not in self._tested:
            self._tested[voter, answer] = await self._test(voter, answer, self._examples)
        return self._tested.get((voter, answer))

    def known(self, answer: str) -> ProgramCheck | None:
        """The test of this program, of any voter; None where it was not tested."""
        return next((check for (_, text), check in self._tested.items() if text == answer and check), None)

    async def _test(self, voter: int, answer: str, examples: Sequence[ProgramExample]) -> ProgramCheck | None:
        again = sum(number == voter for number, _ in self._tested)
        name = f"voice {voter} / examples" + (f" {again + 1}" if again else "")
        arguments = {"code": code_in(answer), "examples": [asdict(example) for example in examples]}
        try:
            result = await self._context.use(AGENT, TOOL, arguments, name=name)
        except InvalidRequest:  # the code agent has no tool that runs programs
            self._examples = ()
            return None
        except OrchestraError as error:
            await self._context.progress(f"the program of voice {voter} was not tested: {error}")
            return None
        return None if result.error else program_check(examples, result.data)
