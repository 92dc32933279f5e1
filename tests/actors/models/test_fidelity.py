"""The imported SmolLM2 against float64 and llama.cpp on the same file, token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.models.chat_template import ChatTemplate
from actors.models.manifest import ModelManifest
from actors.models.tokenizer import Tokenizer
from orchestration.messages import ChatMessage
from tests.actors.models.llama_reference import LlamaReference
from tests.actors.models.llamacpp_client import LlamaCpp
from tests.actors.models.onnx_llama import OnnxLlama
from tests.fixtures.llamacpp import serve_llamacpp

PASSAGE = (Path(__file__).parent / "data" / "passage.txt").read_text()

PROMISED = 0.01
"""How far logits may be from float64's, on any processor (`actors.models.manifest`)."""

Array = NDArray[np.float64]


@pytest.mark.timeout(600)
def test_teacher_forced_tokens_agree_with_llamacpp(
    smollm2: Path, smollm2_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = Tokenizer.load(smollm2).encode(PASSAGE, specials=False)
    forced = np.array(ids[1:])
    ours = OnnxLlama(smollm2).logits(ids)[:-1].astype(np.float64)
    exact = LlamaReference(smollm2_gguf).logits(ids)[:-1]
    # One thread: two of them wait for each other 0.2 s a token as soon as the machine does other work.
    with serve_llamacpp(smollm2_gguf, slots=1, context_tokens=1024, threads=1) as server:
        client = LlamaCpp(server.url)
        theirs = [client.after(ids[:end], ids[end], ours.shape[1]) for end in range(1, len(ids))]
    best = {
        "ours": ours.argmax(-1),
        "exact": exact.argmax(-1),
        "llama.cpp": np.array([n.best for n in theirs]),
    }
    perplexity = {
        "ours": _perplexity(ours, forced),
        "exact": _perplexity(exact, forced),
        "llama.cpp": float(np.exp(-np.mean([n.logprob for n in theirs]))),
    }
    agreement = {
        f"{a} = {b}": float((best[a] == best[b]).mean())
        for a, b in (("ours", "llama.cpp"), ("ours", "exact"), ("llama.cpp", "exact"))
    }
    with capsys.disabled():
        print(f"\n{len(forced)} teacher-forced tokens; perplexity", _rounded(perplexity))
        print("greedy agreement", _rounded(agreement))
    assert len(forced) >= 300
    assert np.abs(_centred(ours) - _centred(exact)).max() < PROMISED
    likeliest = np.sort(exact, axis=-1)
    clear = likeliest[:, -1] - likeliest[:, -2] > 2 * PROMISED
    assert (best["ours"] == best["exact"])[clear].all()
    assert agreement["ours = exact"] >= agreement["llama.cpp = exact"]
    assert perplexity["ours"] == pytest.approx(perplexity["exact"], rel=0.001)
    assert perplexity["ours"] == pytest.approx(perplexity["llama.cpp"], rel=0.02)


def test_a_question_gets_the_answer_that_llamacpp_gives(smollm2: Path, smollm2_gguf: Path) -> None:
    manifest, tokenizer = ModelManifest.read(smollm2), Tokenizer.load(smollm2)
    assert manifest.chat_template is not None
    template = ChatTemplate(
        manifest.chat_template, manifest.bos_token, manifest.eos_token, tokenizer.control_tokens
    )
    # Its likeliest token is ahead by 0.8 or more at every step: rounding decides nothing here.
    question = ChatMessage(role="user", content="What is the capital of Germany?")
    ids = [
        id_
        for segment in template.render([question])
        for id_ in tokenizer.encode(segment.text, specials=segment.trusted)
    ]
    llama = OnnxLlama(smollm2)
    answer: list[int] = []
    while len(answer) < 24:
        logits = llama.logits(ids + answer)[-1]
        if (token := int(logits.argmax())) in manifest.eog_token_ids:
            break
        answer.append(token)
    text = tokenizer.decode(answer)
    assert text == "The capital of Germany is Berlin."
    with serve_llamacpp(smollm2_gguf, slots=1, context_tokens=256, threads=1) as server:
        theirs = LlamaCpp(server.url).greedy(ids, 24)
    assert text == tokenizer.decode([id_ for id_ in theirs if id_ not in manifest.eog_token_ids])


def _centred(logits: Array) -> Array:
    """Without what softmax does not see."""
    centred: Array = logits - logits.mean(-1, keepdims=True)
    return centred


def _perplexity(logits: Array, tokens: NDArray[np.int64]) -> float:
    """exp of the mean negative log-likelihood of `tokens` under softmax(logits)."""
    highest = logits.max(-1, keepdims=True)
    normal = highest[:, 0] + np.log(np.exp(logits - highest).sum(-1))
    chosen = logits[np.arange(len(logits)), tokens]
    return float(np.exp((normal - chosen).mean()))


def _rounded(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
