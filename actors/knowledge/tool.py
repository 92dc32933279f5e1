"""The knowledge base as a tool of the research agent."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from actors.embedding.embedder import Embedder
from actors.knowledge.document import SearchHit
from actors.knowledge.search import Search
from actors.knowledge.settings import KnowledgeSettings
from actors.knowledge.store import store_file
from orchestration.errors import OrchestraError
from orchestration.messages import Tool, ToolResult
from orchestration.validation import first_problem

log = logging.getLogger(__name__)


class Query(BaseModel):
    """The tool's arguments."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=8_000, description="what to look up, as a question")
    max_passages: int = Field(default=5, ge=1, le=20, description="maximum passages")


TOOL = Tool(
    name="knowledge",
    description="find passages in the documents of this organisation",
    parameters=Query.model_json_schema(),
)


class KnowledgeTool:
    """Provides the tool `knowledge` while the data folder has documents, which may change at any time.
    Searches run in one thread."""

    def __init__(self, data: Path, embedder: Embedder, settings: KnowledgeSettings) -> None:
        self.file = store_file(data)
        self.embedder = embedder
        self.settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="knowledge")
        self._open: tuple[int, Search] | None = None
        self._last_warning = ""

    @property
    def ready(self) -> bool:
        return self.file.exists()

    async def tools(self) -> tuple[Tool, ...]:
        try:
            empty = await self._run(self._is_empty)
        except OrchestraError as error:
            if error.message != self._last_warning:  # only once
                self._last_warning = error.message
                log.warning("the research agent continues without its documents: %s", error.message)
            return ()
        return () if empty else (TOOL,)

    async def use(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """Search. The result's `data` is a list of `SearchHit.as_json`."""
        try:
            query = Query.model_validate(arguments)
        except ValidationError as error:
            return ToolResult(error=str(first_problem(error)))
        (vector,) = await self.embedder.vectors([query.query])
        found = await self._run(
            self._find, query.query, vector, min(query.max_passages, self.settings.passages)
        )
        return ToolResult(
            text="\n\n".join(f"{each.title} › {each.heading}\n{each.text}" for each in found),
            data=[each.as_json() for each in found],
        )

    async def close(self) -> None:
        await self._run(self._let_go)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _is_empty(self) -> bool:
        search = self._search()
        return search is None or search.empty

    def _find(self, text: str, vector: NDArray[np.float32], limit: int) -> list[SearchHit]:
        search = self._search()
        if search is None:
            return []
        return search.find(text, vector, limit, self.settings.min_similarity)

    def _search(self) -> Search | None:
        """The current database; it may have been created or replaced since the last search."""
        try:
            file = self.file.stat().st_ino
        except FileNotFoundError:
            self._let_go()
            return None
        if self._open is None or self._open[0] != file:
            self._let_go()
            self._open = file, Search(self.file)
        return self._open[1]

    def _let_go(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None
