"""What a request is expected to take."""

from __future__ import annotations

from orchestration.limits import LimitExceeded, QuotaLimit, RateLimiter, TokenEstimates
from orchestration.limits.token_estimates import MAX_NAMES, TEMPLATE_TOKENS
from orchestration.messages import (
    Budget,
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    EmbeddingGeneration,
    Generation,
    Run,
    Sampling,
    Usage,
)

HI = (ChatMessage(role="user", content="Hi"),)
PLENTY = 100_000


def chat(model: str = "m", max_tokens: int | None = 30) -> Generation:
    return ChatGeneration(id="a.1", model=model, messages=HI, sampling=Sampling(max_tokens=max_tokens))


def test_the_template_counts_before_anything_is_known_of_it() -> None:
    assert TokenEstimates().of(chat(), 1024, PLENTY).total >= 30 + TEMPLATE_TOKENS


def test_the_share_of_a_template_is_learnt_for_each_model() -> None:
    estimates = TokenEstimates()
    for _ in range(40):
        estimates.learn(chat(), Usage(prompt_tokens=131, completion_tokens=30))
    assert 155 <= estimates.of(chat(), 1024, PLENTY).total <= 165
    assert estimates.of(chat("other"), 1024, PLENTY) == TokenEstimates().of(chat(), 1024, PLENTY)


def test_a_run_is_expected_to_take_what_runs_of_its_pattern_took_and_no_more_than_its_budget() -> None:
    estimates = TokenEstimates()
    run = Run(id="a.1", pattern="debate", messages=HI, sampling=Sampling(max_tokens=30))
    before = estimates.of(run, 1024, PLENTY).total
    for _ in range(40):
        estimates.learn(run, Usage(prompt_tokens=900, completion_tokens=300))
    assert before < 100
    assert 1_150 <= estimates.of(run, 1024, PLENTY).total <= 1_250
    bounded = run.model_copy(update={"budget": Budget(tokens=500)})
    assert estimates.of(bounded, 1024, PLENTY).total == 500


def test_a_guess_refuses_nothing_that_a_small_limit_would_hold() -> None:
    assert TokenEstimates().of(chat(), 1024, 40).total == 40
    assert TokenEstimates().of(chat(), 1024, 20).total > 20, "30 tokens of answer do not fit into 20"
    assert TokenEstimates().of(chat(max_tokens=None), 1024, 20).total == 20


def test_embeddings_and_completions_have_no_template() -> None:
    embedding = EmbeddingGeneration(id="a.1", model="m", inputs=("a" * 40,))
    assert TokenEstimates().of(embedding, 1024, PLENTY).total == 14
    ids = CompletionGeneration(id="a.1", model="m", prompt_ids=(1, 2, 3), sampling=Sampling(max_tokens=5))
    assert TokenEstimates().of(ids, 1024, PLENTY).total == 8


def test_the_least_recently_used_is_forgotten() -> None:
    estimates = TokenEstimates()
    for number in range(MAX_NAMES + 10):
        estimates.learn(chat(f"m{number}"), Usage(prompt_tokens=500))
    assert estimates.of(chat("m0"), 1, PLENTY) == TokenEstimates().of(chat(), 1, PLENTY)
    assert estimates.of(chat(f"m{MAX_NAMES + 9}"), 1, PLENTY).total > 100


def test_a_burst_of_callers_stays_within_the_budget_once_and_before_the_template_is_known() -> None:
    per_minute, really = 600, 61
    for known in (0, 40):
        estimates = TokenEstimates()
        for _ in range(known):
            estimates.learn(chat(), Usage(prompt_tokens=really - 30, completion_tokens=30))
        limits = RateLimiter(QuotaLimit(), QuotaLimit(tokens_per_minute=per_minute), {}, now=0.0)
        admitted = 0
        for _ in range(40):
            try:
                limits.reserve("alice", estimates.of(chat(), 1024, per_minute).total, 0.0)
            except LimitExceeded:
                continue
            admitted += 1
        assert 0.75 * per_minute <= admitted * really <= per_minute
