"""What several answers to one question agree on: pure functions by the kind of answer."""

from orchestration.patterns.consensus.answer_kind import Kind
from orchestration.patterns.consensus.code import code_in
from orchestration.patterns.consensus.examples import Example, examples_of
from orchestration.patterns.consensus.garbage import is_garbage
from orchestration.patterns.consensus.kinds import asked_kind, cut_short, key_of, kind_of
from orchestration.patterns.consensus.quorum import TEST, stays_ahead
from orchestration.patterns.consensus.reading import SURE, Reading, read_answer
from orchestration.patterns.consensus.similarity import ALIKE, OVERLAP, clusters, likeness, medoid
from orchestration.patterns.consensus.vote_count import Ballot, Party, Tally, count

__all__ = [
    "ALIKE",
    "OVERLAP",
    "SURE",
    "TEST",
    "Ballot",
    "Example",
    "Kind",
    "Party",
    "Reading",
    "Tally",
    "asked_kind",
    "clusters",
    "code_in",
    "count",
    "cut_short",
    "examples_of",
    "is_garbage",
    "key_of",
    "kind_of",
    "likeness",
    "medoid",
    "read_answer",
    "stays_ahead",
]
