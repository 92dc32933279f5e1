"""The result of one question for one pattern."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from orchestration.messages import ErrorBody, Usage


class Result(BaseModel):
    """One line of the results file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pattern: str
    question: str
    """The id of the question."""
    text: str = ""
    """The whole text of the answer."""
    answer: str | None = None
    """The answer that was extracted from the text. None if there was none."""
    score: float = Field(default=0.0, ge=0, le=1)
    """1 is right."""
    tokens: int = 0
    """Prompt and completion tokens of all steps, failed and stopped ones included, as for the budget."""
    calls: int = 0
    """Steps that called a model."""
    seconds: float = 0.0
    """The duration of the last attempt."""
    first_token_s: float | None = None
    """Seconds from the start of the last attempt to the first token. None if there was none."""
    attempts: int = 1
    """Attempts, including those refused by a limit or for lack of nodes."""
    run: str = ""
    """The id of the run."""
    notes: tuple[str, ...] = ()
    """Notes of the run, such as that the budget cut something."""
    models: dict[str, Usage] = {}
    """Usage by model."""
    error: ErrorBody | None = None

    @property
    def right(self) -> bool:
        """Whether the answer is right; a partly right one is not."""
        return self.error is None and self.score > 1 - 1e-9
