"""Errors of a local Triton server and of its model repository.

Unavailable
└── TritonError               tritonserver did not start, or died again and again
    ├── Incompatible          this Python cannot run the Python backend
    ├── TritonPortInUse       another program listens on the port
    ├── WrongVersion          the server lacks a feature that Orchestra needs
    └── TritonFolderUnusable  the folder for the log and the backends cannot be written
InvalidRequest
└── BadRepository             the model repository is missing, or cannot be served as asked
"""

from __future__ import annotations

from orchestration.errors import InvalidRequest, Unavailable


class TritonError(Unavailable):
    """Triton does not run, and a retry does not help. The text says what to do."""

    retryable = False


class Incompatible(TritonError):
    pass


class TritonPortInUse(TritonError):
    pass


class WrongVersion(TritonError):
    pass


class TritonFolderUnusable(TritonError):
    pass


class BadRepository(InvalidRequest):
    pass
