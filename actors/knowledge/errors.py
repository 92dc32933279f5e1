"""What can go wrong with documents and the store of them, below `OrchestraError`.

KnowledgeError                 status  code                  retryable
├── UnreadableDocument            400  unreadable_document   no
├── DocumentTooLarge              413  document_too_large    no
├── NotAllowed                    403  not_allowed           no
├── FetchFailed                   502  fetch_failed          yes
├── StoreBroken                   500  store_broken          no
└── StoreFull                     507  store_full            no
"""

from __future__ import annotations

from orchestration.errors import OrchestraError


class KnowledgeError(OrchestraError):
    """The root of what `actors.knowledge` raises on purpose."""

    status = 500
    code = "knowledge_error"


class UnreadableDocument(KnowledgeError):
    """No text can be taken out of it; the message says why."""

    status = 400
    code = "unreadable_document"


class DocumentTooLarge(KnowledgeError):
    """It, or its text, is beyond a limit of the settings, which the message names."""

    status = 413
    code = "document_too_large"


class NotAllowed(KnowledgeError):
    """The settings do not let it be fetched."""

    status = 403
    code = "not_allowed"


class FetchFailed(KnowledgeError):
    """A web page could not be had."""

    status = 502
    code = "fetch_failed"
    retryable = True


class StoreBroken(KnowledgeError):
    """The database cannot be opened, or is not one of ours."""

    code = "store_broken"


class StoreFull(KnowledgeError):
    """The disk, or what the settings allow of it, is full. What was stored before is whole."""

    status = 507
    code = "store_full"
