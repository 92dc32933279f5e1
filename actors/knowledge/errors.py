"""Errors of documents and their store.

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
    """An error of the document store."""

    status = 500
    code = "knowledge_error"


class UnreadableDocument(KnowledgeError):
    """The document has no text that can be extracted; the message says why."""

    status = 400
    code = "unreadable_document"


class DocumentTooLarge(KnowledgeError):
    """The document or its text exceeds a limit of the settings, which the message names."""

    status = 413
    code = "document_too_large"


class NotAllowed(KnowledgeError):
    """The settings do not allow to fetch this URL."""

    status = 403
    code = "not_allowed"


class FetchFailed(KnowledgeError):
    """A web page could not be fetched."""

    status = 502
    code = "fetch_failed"
    retryable = True


class StoreBroken(KnowledgeError):
    """The database of documents cannot be opened, or is not one of Orchestra."""

    code = "store_broken"


class StoreFull(KnowledgeError):
    """The disk is full, or `knowledge.max_store_mb` is reached. Stored documents are intact."""

    status = 507
    code = "store_full"
