"""Errors of model files.

ModelError                     status  code                retryable
├── UnsupportedModel              400  unsupported_model   no
├── CorruptModel                  500  corrupt_model       no
├── SourceUnavailable             503  source_unavailable  yes
└── ModelStorage                  507  model_storage       no
"""

from __future__ import annotations

from orchestration.errors import OrchestraError


class ModelError(OrchestraError):
    """An error of the installed models."""

    status = 500
    code = "model_error"


class UnsupportedModel(ModelError):
    """The file is valid, but not supported; the text names the unsupported part."""

    status = 400
    code = "unsupported_model"


class CorruptModel(ModelError):
    """A file is truncated, modified, or of another type than its name says."""

    code = "corrupt_model"


class SourceUnavailable(ModelError):
    """The source of a model cannot be reached or lacks the file."""

    status = 503
    code = "source_unavailable"
    retryable = True


class ModelStorage(ModelError):
    """The models folder is not writable, or the disk is full."""

    status = 507
    code = "model_storage"
