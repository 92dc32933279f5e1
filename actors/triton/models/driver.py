"""The driver of a partitioned model in Triton: an engine whose steps run through an ensemble of stages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.engine.backend import EngineBackend
from actors.engine.settings import EngineSettings
from actors.triton.models.engines import parameters, parse_settings
from actors.triton.models.partition import StepCall
from actors.triton.models.pipeline import PipelineRuntime
from orchestration.errors import BackendFailed

_OWN = ("folder", "reserves")

_PATIENCE = 1_000_000
"""Maximum consecutive failed steps: a missing stage is reloaded, the driver must survive that."""


def build_driver(pb: Any, args: Mapping[str, str]) -> EngineBackend:
    """The engine of the model that Triton starts with `args`, over the ensemble `<name>-pipeline`.

    `pb` is `triton_python_backend_utils`. Raises `InvalidRequest` for an invalid parameter.
    """
    values = parameters(args)
    options = {"max_failures": str(_PATIENCE)} | {key: values[key] for key in values if key not in _OWN}
    settings = parse_settings(EngineSettings, options)
    pipeline = Pipeline(pb, f"{args['model_name']}-pipeline")
    runtime = PipelineRuntime(pipeline.step, reserves=values["reserves"] == "true")
    return EngineBackend([Path(values["folder"])], settings, runtime)


class Pipeline:
    """The ensemble of all stages, called from the engine's thread."""

    def __init__(self, pb: Any, name: str) -> None:
        self._pb = pb
        self._name = name

    def step(self, call: StepCall, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """One step; see `actors.triton.models.pipeline.Call`. Raises BackendFailed with the stage's error."""
        values = {
            "tokens": tokens,
            "driver": np.array([call.driver], np.int64),
            "row": np.array([call.row], np.int32),
            "lengths": call.lengths,
            "commands": call.commands,
        }
        request = self._pb.InferenceRequest(
            model_name=self._name,
            requested_output_names=["logits"],
            inputs=[self._pb.Tensor(name, np.ascontiguousarray(value)) for name, value in values.items()],
        )
        response = request.exec()
        if response.has_error():
            raise BackendFailed(f"{self._name}: {response.error().message()}")
        logits = self._pb.get_output_tensor_by_name(response, "logits").as_numpy()
        # The engine modifies logits in place; Triton's are read-only shared memory.
        changeable: NDArray[np.float32] = np.array(logits)
        return changeable
