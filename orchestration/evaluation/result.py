"""What came of one question asked of one pattern."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from orchestration.messages import ErrorBody, Usage


class Result(BaseModel):
    """One line of the results. `question` is its id; `text` is all that was said, `answer` what was taken
    out of it, and `score` what that is worth: 1 is right.

    `tokens` are those that count against the budget, read and written by all steps, also by those that failed
    or were stopped before they ended; `models` has them by model. Seconds run from the asking of
    the attempt that was answered; `attempts` counts those that a limit or a lack of nodes refused as well.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    pattern: str
    question: str
    text: str = ""
    answer: str | None = None
    score: float = Field(default=0.0, ge=0, le=1)
    tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    first_token_s: float | None = None
    attempts: int = 1
    run: str = ""
    notes: tuple[str, ...] = ()
    models: dict[str, Usage] = {}
    error: ErrorBody | None = None

    @property
    def right(self) -> bool:
        """Partly right is not right."""
        return self.error is None and self.score > 1 - 1e-9
