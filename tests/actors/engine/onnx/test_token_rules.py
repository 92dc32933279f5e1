"""What a caller says of tokens, and how an answer begins, with the real model."""

from __future__ import annotations

import numpy as np
import pytest

from actors.engine.onnx_backend import OnnxBackend
from actors.engine.token_rules import TokenRules
from actors.models.tokenizer import Tokenizer
from orchestration.errors import InvalidRequest
from orchestration.messages import Sampling
from tests.actors.engine.onnx.asking import ask, chat, complete
from tests.fixtures.models import smollm2_folder


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(smollm2_folder())


async def test_a_biased_token_comes_always_and_a_banned_one_never(
    backend: OnnxBackend, tokenizer: Tokenizer
) -> None:
    (cat,) = tokenizer.encode(" cat", specials=False)
    answer = await ask(backend, complete("A", logit_bias={cat: 100}, max_tokens=3))
    assert answer.text == " cat cat cat"
    plain = await ask(backend, complete("One, two, three,", max_tokens=1))
    first = tokenizer.encode(plain.text, specials=False)[0]
    other = await ask(backend, complete("One, two, three,", logit_bias={first: -100}, max_tokens=1))
    assert other.text != plain.text


async def test_an_answer_ends_not_before_its_least_tokens_and_never_where_ends_are_ignored(
    backend: OnnxBackend,
) -> None:
    short = chat("Say OK.", max_tokens=40)
    usual = await ask(backend, short)
    assert usual.finish.reason == "stop"
    least = usual.finish.usage.completion_tokens + 5
    longer = await ask(backend, chat("Say OK.", max_tokens=40, min_tokens=least))
    assert longer.finish.usage.completion_tokens >= least
    endless = await ask(backend, chat("Say OK.", max_tokens=40, ignore_eos=True))
    assert (endless.finish.reason, endless.finish.usage.completion_tokens) == ("length", 40)


async def test_a_token_of_the_callers_ends_the_answer(backend: OnnxBackend, tokenizer: Tokenizer) -> None:
    whole = await ask(backend, complete("One, two, three,", max_tokens=8))
    second = tokenizer.encode(whole.text, specials=False)[1]
    cut = await ask(backend, complete("One, two, three,", max_tokens=8, stop_token_ids=(second,)))
    assert cut.finish.reason == "stop"
    assert cut.text == whole.pieces[0].text


async def test_token_ids_are_read_as_they_are_and_a_long_prompt_by_its_end(
    backend: OnnxBackend, tokenizer: Tokenizer
) -> None:
    text = complete("One, two, three,", max_tokens=4)
    ids = tuple(tokenizer.encode(text.prompt, specials=False))
    by_ids = text.model_copy(update={"prompt": "", "prompt_ids": ids})
    assert (await ask(backend, by_ids)).finish.usage.prompt_tokens == len(ids)
    sampling = text.sampling.model_copy(update={"truncate_prompt_tokens": 3})
    last = await ask(backend, by_ids.model_copy(update={"sampling": sampling}))
    assert last.finish.usage.prompt_tokens == 3
    with pytest.raises(InvalidRequest, match="the model has tokens 0 to") as refused:
        await ask(backend, text.model_copy(update={"prompt_ids": (10**6,)}))
    assert refused.value.param == "prompt"


def test_a_token_that_the_vocabulary_does_not_have_is_refused() -> None:
    for sampling in (Sampling(logit_bias={9: 1.0}), Sampling(stop_token_ids=(9,))):
        with pytest.raises(InvalidRequest, match="0 to 7"):
            TokenRules.of(sampling, [1], 8)
    assert TokenRules.of(Sampling(), [1], 8) is None


def test_ends_are_possible_again_once_the_least_tokens_are_written() -> None:
    rules = TokenRules.of(Sampling(min_tokens=2), [1], 4)
    assert rules is not None
    for written, possible in ((0, False), (1, False), (2, True)):
        logits = np.zeros(4, np.float32)
        rules.apply(logits, written)
        assert np.isfinite(logits[1]) == possible
        assert np.isfinite(logits[[0, 2, 3]]).all()
