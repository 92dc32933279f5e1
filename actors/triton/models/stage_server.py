"""A stage as a Triton model: converts tensors to steps and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.engine.settings import EngineSettings
from actors.triton.models.engines import device_of, parameters, parse_settings
from actors.triton.models.partition import LayerRange, StepCall
from actors.triton.models.stage import PipelineStage, StagePlacement
from orchestration.errors import OrchestraError

_OWN = ("folder", "first", "last", "reserves", "ttl_s")


class StageServer:
    """Answers the requests of a Triton model with the tensors of `triton_models/llm_stage`.

    `pb` is `triton_python_backend_utils`, which exists only in Triton's stub; `args` are the arguments of
    `initialize`. Raises what `PipelineStage.load` raises.
    """

    def __init__(self, pb: Any, args: Mapping[str, str]) -> None:
        self._pb = pb
        values = parameters(args)
        place = StagePlacement(
            name=args["model_name"],
            share=LayerRange(int(values["first"]), int(values["last"])),
            device=device_of(args),
            reserves=values["reserves"] == "true",
            ttl_s=float(values["ttl_s"]),
        )
        options = {name: value for name, value in values.items() if name not in _OWN}
        self._stage = PipelineStage.load(
            Path(values["folder"]), place, parse_settings(EngineSettings, options)
        )
        self._input = "tokens" if place.share.first == 0 else "hidden"
        self._output = "logits" if self._stage.ends else "hidden"
        self._held = pb.MetricFamily(
            name="orchestra_stage_tokens",
            description="Tokens whose keys and values a stage holds for running generations",
            kind=pb.MetricFamily.GAUGE,
        )
        self._stage.on_held = self._held.Metric(labels={"model": place.name}).set

    def answer(self, request: Any) -> Any:
        """The response to a request: the layers' output, or an error `<code>: <message>`."""
        try:
            call = StepCall(
                driver=int(self._read(request, "driver")[0]),
                row=int(self._read(request, "row")[0]),
                lengths=self._read(request, "lengths"),
                commands=self._read(request, "commands"),
            )
            computed = self._stage.step(call, self._read(request, self._input))
        except OrchestraError as error:
            return self._pb.InferenceResponse(error=self._pb.TritonError(f"{error.code}: {error.message}"))
        return self._pb.InferenceResponse([self._pb.Tensor(self._output, computed)])

    def close(self) -> None:
        self._stage.close()

    def _read(self, request: Any, name: str) -> Any:
        return self._pb.get_input_tensor_by_name(request, name).as_numpy()
