"""What can stand in the way of an evaluation, below `OrchestraError`.

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
    """There are no questions to be had from it; the message says where and why."""

    code = "bad_dataset"


class BadScorer(InvalidRequest):
    """The file of Python that is to read answers cannot do it."""

    code = "bad_scorer"


class OtherResults(InvalidRequest):
    """The folder holds results that cannot be gone on with."""

    code = "other_results"


class ResultsStorage(OrchestraError):
    """The results cannot be written."""

    status = 507
    code = "results_storage"
