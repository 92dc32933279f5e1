"""A partitioned model without Triton: its stages called one after the other in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.engine.backend import EngineBackend
from actors.engine.settings import EngineSettings
from actors.models.manifest import ModelManifest
from actors.triton.models.partition import StepCall, split_layers
from actors.triton.models.pipeline import PipelineRuntime
from actors.triton.models.stage import PipelineStage, StagePlacement


@dataclass(slots=True)
class Stages:
    """The stages of one model, and the calls they got. `call` is what a driver's runtime takes."""

    stages: Sequence[PipelineStage]
    calls: list[StepCall] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path, partitions: int, settings: EngineSettings, *, ttl_s: float = 600.0) -> Stages:
        cut = split_layers(ModelManifest.read(folder).layers, partitions)
        return cls(
            [
                PipelineStage.load(
                    folder, StagePlacement(name=f"stage-{at}", share=share, ttl_s=ttl_s), settings
                )
                for at, share in enumerate(cut)
            ]
        )

    def call(self, call: StepCall, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        self.calls.append(call)
        x: NDArray[Any] = tokens
        for stage in self.stages:
            x = stage.step(call, x)
        return x

    def driver(self, folder: Path, settings: EngineSettings) -> EngineBackend:
        """A driver of these stages, younger than the ones before."""
        return EngineBackend([folder], settings, PipelineRuntime(self.call))

    @property
    def held(self) -> list[int]:
        """Tokens that each stage holds."""
        return [stage.held for stage in self.stages]

    def close(self) -> None:
        for stage in self.stages:
            stage.close()
