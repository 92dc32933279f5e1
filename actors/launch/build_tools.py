"""Makes the tools of a process' agents from its settings."""

from __future__ import annotations

from actors.embedding.embedder import Embedder
from actors.installation.optional_imports import needs_extra
from actors.settings import Settings
from actors.tools.base import ToolProvider
from actors.tools.python import PythonTool
from actors.tools.registry import ToolRegistry
from actors.tools.settings import McpServerSettings

RESEARCH = "research"
CODE = "code"


def build_tools(settings: Settings, embedder: Embedder | None) -> ToolRegistry:
    """The tools of all agents in this process; close them at its end. Raises `ExtraMissing` if a setting
    needs an extra that is not installed."""
    tools = ToolRegistry(settings.agents.tools)
    if embedder is not None:
        from actors.knowledge.tool import KnowledgeTool

        tools.register_provider(RESEARCH, KnowledgeTool(settings.folder, embedder, settings.knowledge))
    if settings.agents.sandbox.enabled:
        tools.register(CODE, PythonTool(settings.agents.sandbox))
    for name, server in settings.agents.mcp.items():
        box = _mcp_server(name, server)
        for role in server.roles:
            tools.register_provider(role, box)
    return tools


def _mcp_server(name: str, settings: McpServerSettings) -> ToolProvider:
    with needs_extra("mcp", f"agents.mcp.{name}"):
        from actors.tools.mcp_server import McpServer
    return McpServer(name, settings)
