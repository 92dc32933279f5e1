"""Makes the engine for a Triton model's configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from actors.engine.backend import EngineBackend
from actors.engine.settings import EngineSettings, OnnxSettings, TorchSettings
from orchestration.errors import InvalidRequest
from orchestration.validation import first_problem

S = TypeVar("S", bound=EngineSettings)

_OWN = ("folder", "runtime")


def build_engine(args: Mapping[str, str]) -> EngineBackend:
    """The engine for the arguments of `initialize`: the parameters `folder`, `runtime` (torch or onnxruntime)
    and any setting of the engine; for torch also the device of the instance.

    Raises `InvalidRequest` for an invalid parameter, and what the runtimes raise.
    """
    values = parameters(args)
    runtime = values.get("runtime", "torch")
    if "folder" not in values:
        raise InvalidRequest("the parameter folder (of the installed model) is missing", param="folder")
    folder = Path(values["folder"])
    options = {name: value for name, value in values.items() if name not in _OWN}
    if runtime == "torch":
        # Read when torch is loaded: spinning threads would take cores from the other models' processes.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from actors.engine.sessions.torch_runtime import TorchRuntime

        torch = parse_settings(TorchSettings, {"device": device_of(args)} | options)
        return EngineBackend([folder], torch, TorchRuntime(torch))
    if runtime == "onnxruntime":
        from actors.engine.onnx_backend import OnnxRuntime

        onnx = parse_settings(OnnxSettings, options)
        return EngineBackend([folder], onnx, OnnxRuntime(onnx))
    raise InvalidRequest(f"invalid runtime {runtime!r}: write torch or onnxruntime", param="runtime")


def parameters(args: Mapping[str, str]) -> dict[str, str]:
    """The `parameters` of the model's configuration."""
    found = json.loads(args["model_config"]).get("parameters", {})
    return {name: value["string_value"] for name, value in found.items()}


def device_of(args: Mapping[str, str]) -> str:
    """`cpu` or `cuda:N`, from the instance group."""
    if args["model_instance_kind"] == "GPU":
        return f"cuda:{args['model_instance_device_id']}"
    return "cpu"


def parse_settings(kind: type[S], options: Mapping[str, str]) -> S:
    """Settings from strings. Raises `InvalidRequest`, which names the parameter."""
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        problem = first_problem(error)
        raise InvalidRequest(f"parameter {problem}", param=problem.where) from error
