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
    """The base class of all errors of `actors.knowledge`."""

    status = 500
    code = "knowledge_error"


class UnreadableDocument(KnowledgeError):
    """No text can be extracted; the message has the reason."""

    status = 400
    code = "unreadable_document"


class DocumentTooLarge(KnowledgeError):
    """The document or its text exceeds a limit; the message names the setting."""

    status = 413
    code = "document_too_large"


class NotAllowed(KnowledgeError):
    """The settings do not allow to fetch it."""

    status = 403
    code = "not_allowed"


class FetchFailed(KnowledgeError):
    """A web page could not be fetched."""

    status = 502
    code = "fetch_failed"
    retryable = True


class StoreBroken(KnowledgeError):
    """The database cannot be opened, or was not made by Orchestra."""

    code = "store_broken"


class StoreFull(KnowledgeError):
    """The disk is full or the size limit is reached. Documents stored before are intact."""

    status = 507
    code = "store_full"
