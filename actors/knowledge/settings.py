"""What can be set of the knowledge base."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class KnowledgeSettings(BaseModel):
    """The documents that agents may cite. Sizes are in MB of 10^6 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_urls: bool = False
    """Whether documents may be fetched from the web."""
    private_addresses: bool = False
    """Whether documents may be fetched from loopback, link-local and private addresses."""
    fetch_timeout_s: float = Field(default=30, gt=0, le=600)
    """Timeout for one URL, including redirects and body."""
    max_document_mb: float = Field(default=32, gt=0, le=1_000)
    """Maximum size of a file or web page; larger ones are refused."""
    max_text_mb: float = Field(default=16, gt=0, le=200)
    """Maximum size of a document's text; larger ones are refused."""
    read_timeout_s: float = Field(default=60, gt=0, le=3_600)
    """Timeout to extract the text of one document; its reader is killed then."""
    read_memory_mb: int = Field(default=1_024, ge=256)
    """Maximum memory of the process that reads documents."""
    max_store_mb: float = Field(default=4_000, ge=1)
    """Maximum size of the database; documents beyond it are refused. A passage takes about 4 KB."""
    passages: int = Field(default=5, ge=1, le=20)
    """Maximum passages that the research agent gets for a question."""
    min_similarity: float = Field(default=0.25, ge=-1, le=1)
    """Minimum cosine similarity of a question and a passage; passages below it are not used. Passages with an
    answer were measured at 0.34 to 0.84, others at 0.08 to 0.2."""
