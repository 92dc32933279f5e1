"""Claims against sources, with the real embedding model: how often the measure is right."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from actors.embedding.embedder import Embedder
from orchestration.patterns.grounding_check import Claim, Vectors, claims_of, evidence, judged
from tests.actors.knowledge.claims import LABELLED, Labelled


async def verdicts(labelled: Labelled, embedder: Embedder | None) -> tuple[list[Claim], list[Claim]]:
    """The claims that are supported, and those that are not, as the measure sees them."""
    claims = [*labelled.supported, *labelled.unsupported]
    held = evidence([labelled.passage])
    vectors: Vectors = {}
    if embedder is not None:
        texts = [*claims, *(text for _, text in held)]
        vectors = dict(zip(texts, (await embedder.vectors(texts)).tolist(), strict=True))
    found = judged(claims, held, vectors)
    return found[: len(labelled.supported)], found[len(labelled.supported) :]


async def accuracy(labelled: Sequence[Labelled], embedder: Embedder | None) -> float:
    right = total = 0
    for each in labelled:
        supported, unsupported = await verdicts(each, embedder)
        right += sum(claim.supported for claim in supported)
        right += sum(not claim.supported for claim in unsupported)
        total += len(supported) + len(unsupported)
    return right / total


async def test_most_claims_are_told_right_also_where_the_measure_was_not_made(embedder: Embedder) -> None:
    half = len(LABELLED) // 2
    seen, unseen = await accuracy(LABELLED[:half], embedder), await accuracy(LABELLED[half:], embedder)
    majority = 4 / 7  # whoever calls every claim unsupported is right so often
    print(f"claims told right: {seen:.0%} where the measure was made, {unseen:.0%} elsewhere")
    assert min(seen, unseen) > majority + 0.2
    assert await accuracy(LABELLED, None) > majority + 0.1  # by words alone


async def test_another_number_another_name_and_the_opposite_are_no_support(embedder: Embedder) -> None:
    passage = "The ferry from Kallholm takes 25 minutes. Dogs are allowed on board."
    held = evidence([passage])
    claims = [
        "The ferry from Kallholm takes 25 minutes.",
        "The ferry from Kallholm takes 45 minutes.",
        "The ferry from Norrby takes 25 minutes.",
        "Dogs are allowed on board.",
        "Dogs are not allowed on board.",
    ]
    texts = [*claims, *(text for _, text in held)]
    vectors = dict(zip(texts, (await embedder.vectors(texts)).tolist(), strict=True))
    said = [claim.supported for claim in judged(claims, held, vectors)]
    assert said == [True, False, False, True, False]


async def test_a_claim_is_held_against_all_sources_and_the_best_is_named(embedder: Embedder) -> None:
    held = evidence(each.passage for each in LABELLED)
    for index, each in enumerate(LABELLED):
        claim = each.supported[0]
        texts = [claim, *(text for _, text in held)]
        vectors = dict(zip(texts, (await embedder.vectors(texts)).tolist(), strict=True))
        (found,) = judged([claim], held, vectors)
        assert found.source == index


@pytest.mark.parametrize(
    ("answer", "claims"),
    [
        ("", []),
        ("Is it open? Yes.", []),
        ("# Opening hours of the harbour:\n\nThe harbour opens at six [1].", ["The harbour opens at six."]),
        ("I do not know when it opens. I'm not sure about this one.", []),
        ("```python\nthe_harbour = opens('at six')\n```\nIt opens at six today.", ["It opens at six today."]),
        ("- The ferry leaves hourly [1, 2].", ["The ferry leaves hourly."]),
    ],
)
def test_claims_are_sentences_that_can_be_checked(answer: str, claims: list[str]) -> None:
    assert claims_of(answer) == claims
