"""Our continuous-batching engine. Whatever computes logits can be its runtime: see `runtime`."""

from actors.node.engine.backend import EngineBackend
from actors.node.engine.runtime import Runtime
from actors.node.engine.settings import EngineSettings
from actors.node.engine.stats import EngineStats

__all__ = ["EngineBackend", "EngineSettings", "EngineStats", "Runtime"]
