"""Errors of evaluations, below `OrchestraError`.

OrchestraError                 status  code                  retryable
├── InvalidRequest
│   ├── BadDataset                400  bad_dataset           no
│   ├── BadScorer                 400  bad_scorer            no
│   └── OtherResults              400  other_results         no
├── ExtraMissing                  500  extra_missing         no
└── ResultsStorage                507  results_storage       no
"""

from __future__ import annotations

from orchestration.errors import InvalidRequest, OrchestraError


class BadDataset(InvalidRequest):
    """The data set has no questions, or cannot be read; the message says where and why."""

    code = "bad_dataset"


class BadScorer(InvalidRequest):
    """The Python file of a scorer cannot be used; the message says why."""

    code = "bad_scorer"


class OtherResults(InvalidRequest):
    """The folder has results that cannot be resumed."""

    code = "other_results"


class ResultsStorage(OrchestraError):
    """The results cannot be written."""

    status = 507
    code = "results_storage"
