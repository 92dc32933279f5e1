"""The consensus of several answers to one question: pure functions, by the kind of answer."""

from orchestration.patterns.consensus.answer_kind import AnswerKind
from orchestration.patterns.consensus.best_reading import AnswerReading
from orchestration.patterns.consensus.code import code_in
from orchestration.patterns.consensus.examples import ProgramExample, examples_of
from orchestration.patterns.consensus.garbage import is_garbage
from orchestration.patterns.consensus.kinds import asked_kind, cut_short, key_of, kind_of
from orchestration.patterns.consensus.quorum import TEST_NAME, lead_probability
from orchestration.patterns.consensus.reading import SURE_CONFIDENCE, read_answer
from orchestration.patterns.consensus.similarity import (
    MIN_OVERLAP,
    MIN_SIMILARITY,
    clusters,
    medoid,
    similarity_matrix,
)
from orchestration.patterns.consensus.vote_count import AnswerGroup, Vote, VoteCount, count_votes

__all__ = [
    "MIN_OVERLAP",
    "MIN_SIMILARITY",
    "SURE_CONFIDENCE",
    "TEST_NAME",
    "AnswerGroup",
    "AnswerKind",
    "AnswerReading",
    "ProgramExample",
    "Vote",
    "VoteCount",
    "asked_kind",
    "clusters",
    "code_in",
    "count_votes",
    "cut_short",
    "examples_of",
    "is_garbage",
    "key_of",
    "kind_of",
    "lead_probability",
    "medoid",
    "read_answer",
    "similarity_matrix",
]
