"""Our continuous-batching engine. Whatever computes logits can be its runtime: see `runtime`."""

from actors.engine.backend import EngineBackend
from actors.engine.runtime import Runtime
from actors.engine.settings import EngineSettings
from actors.engine.stats import EngineStats

__all__ = ["EngineBackend", "EngineSettings", "EngineStats", "Runtime"]
