"""Why Triton does not run here, or not as asked.

Unavailable
└── TritonError           tritonserver did not start, or it died again and again
    ├── ExtraMissing      no tritonserver on PATH, and the extra `triton` is not installed
    ├── Unfit             this Python cannot run the Python backend
    ├── PortBusy          somebody else listens on the port
    ├── WrongVersion      a server that cannot do what Orchestra asks of it
    └── DataFolderUnusable  where the log and the backends go cannot be written
InvalidRequest
└── BadRepository         a model repository that is not there, or cannot be what is asked
"""

from __future__ import annotations

from orchestration.errors import InvalidRequest, Unavailable


class TritonError(Unavailable):
    """Triton does not run, and waiting will not help: the text says what will."""

    retryable = False


class ExtraMissing(TritonError):
    @classmethod
    def of(cls, what: str) -> ExtraMissing:
        return cls(f"{what}: install the extra `triton` (pip install 'orchestra-llm[triton]')")


class Unfit(TritonError):
    pass


class PortBusy(TritonError):
    pass


class WrongVersion(TritonError):
    pass


class DataFolderUnusable(TritonError):
    pass


class BadRepository(InvalidRequest):
    pass
