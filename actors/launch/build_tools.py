"""What the agents of this machine can use, by its settings."""

from __future__ import annotations

from actors.embedding.embedder import Embedder
from actors.settings import Settings
from actors.tools.base import Toolbox
from actors.tools.calculator import CalculatorHand
from actors.tools.mcp_settings import McpServerSettings
from actors.tools.python import PythonHand
from actors.tools.registry import Hands
from orchestration.errors import InvalidRequest

RESEARCH = "research"
CODE = "code"
REASONING = "reasoning"


def equip(settings: Settings, embedder: Embedder | None) -> Hands:
    """The hands for a process of agents, to be closed at its end. Raises `InvalidRequest` where a setting
    needs an extra that is not installed."""
    hands = Hands(settings.agents.hands)
    if embedder is not None:
        from actors.knowledge.tool import KnowledgeHand

        hands.give_box(RESEARCH, KnowledgeHand(settings.folder, embedder, settings.knowledge))
    hands.give(REASONING, CalculatorHand())
    if settings.agents.sandbox.enabled:
        hands.give(CODE, PythonHand(settings.agents.sandbox))
    for name, server in settings.agents.mcp.items():
        box = _mcp_server(name, server)
        for role in server.roles:
            hands.give_box(role, box)
    return hands


def _mcp_server(name: str, settings: McpServerSettings) -> Toolbox:
    try:
        from actors.tools.mcp_server import McpServer
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            f"agents.mcp.{name} needs {error.name}: pip install 'orchestra-llm[mcp]'",
            param=f"agents.mcp.{name}",
        ) from error
    return McpServer(name, settings)
