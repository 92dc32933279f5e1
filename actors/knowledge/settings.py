"""What can be set of the knowledge base."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class KnowledgeSettings(BaseModel):
    """The documents of one data folder. Sizes are of 10^6 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_urls: bool = False
    """Whether documents may be fetched from the web."""
    private_addresses: bool = False
    """Whether a URL may lead to loopback, link-local and private addresses: to whatever is in the network."""
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
    """Given to the research agent for a question, at most."""
    min_similarity: float = Field(default=0.25, ge=-1, le=1)
    """Cosine between a question and a passage below which the passage is not given. Short passages that
    answer a question lie at 0.34 to 0.84; the nearest to a question about something else at 0.08 to 0.2."""
