"""Plans the parts of a repository for one installed model: templates, names and values.

The templates are the folders of `triton_models/`; its README lists their variables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from actors.models.manifest import ModelManifest
from actors.triton.devices import Device, parse_devices
from actors.triton.models.partition import split_layers
from actors.triton.settings import Runtime
from orchestration.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """One Triton model: a template, its name in the repository, and the values for the template."""

    template: str
    name: str
    about: str
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """How to serve a model: the number of `partitions`, the `device`, and the `runtime` of a chat model."""

    partitions: int = 1
    device: str = "cpu"
    runtime: Runtime = "torch"


def plan_parts(manifest: ModelManifest, spec: ModelSpec) -> list[ModelPart]:
    """The parts of the model; the first one is what clients call, and has the model's name.

    Raises InvalidRequest for a spec that this model cannot meet.
    """
    if spec.partitions < 1:
        raise InvalidRequest(f"partitions must be at least 1, not {spec.partitions}", param="partitions")
    if manifest.kind == "embedding":
        if spec.partitions != 1:
            raise InvalidRequest(
                f"{manifest.name} is an embedding model, which cannot be partitioned", param="partitions"
            )
        return _embedding(manifest, spec)
    if spec.partitions == 1:
        (device,) = parse_devices(spec.device, 1)
        about = f"all {manifest.layers} layers on {device} by {spec.runtime}"
        return [ModelPart(template="llm", name=manifest.name, about=about, values=_on(device, spec))]
    if spec.runtime != "torch":
        raise InvalidRequest("only torch runs a part of the layers: omit --runtime", param="runtime")
    return _partitioned(manifest, spec)


def common_values(manifest: ModelManifest, weights: Path) -> dict[str, str]:
    """Values for every template; `weights` is the model's folder as the part sees it."""
    return {
        "name": manifest.name,
        "folder": str(weights),
        "hidden": str(manifest.hidden),
        "vocabulary": str(manifest.vocabulary),
        "layers": str(manifest.layers),
        "context": str(manifest.context_tokens),
    }


def _on(device: Device, spec: ModelSpec) -> dict[str, str]:
    return {"device": device.instance_group, "runtime": spec.runtime}


def _embedding(manifest: ModelManifest, spec: ModelSpec) -> list[ModelPart]:
    (device,) = parse_devices(spec.device, 1)
    values = _on(device, spec)
    steps = {"tokenizer": "texts into tokens", "encoder": f"on {device}", "pooling": "into one vector each"}
    ensemble = ModelPart(
        template="embedding", name=manifest.name, about="ensemble of three steps", values=values
    )
    return [ensemble] + [
        ModelPart(template=f"embedding_{step}", name=f"{manifest.name}-{step}", about=about, values=values)
        for step, about in steps.items()
    ]


def _partitioned(manifest: ModelManifest, spec: ModelSpec) -> list[ModelPart]:
    ranges = split_layers(manifest.layers, spec.partitions)
    placements = parse_devices(spec.device, spec.partitions)
    name, last = manifest.name, spec.partitions - 1
    # The caches of the driver and all stages have the same size, so all must allocate alike.
    reserves = {"reserves": str(any(place.gpu is not None for place in placements)).lower()}
    steps = ", ".join(_step(name, stage, last) for stage in range(spec.partitions))
    found = [
        ModelPart(
            template="llm_partitioned",
            name=name,
            about=f"driver of {spec.partitions} stages",
            values={"device": Device().instance_group, "partitions": str(spec.partitions)} | reserves,
        ),
        ModelPart(
            template="llm_pipeline", name=f"{name}-pipeline", about="ensemble", values={"steps": steps}
        ),
    ]
    for stage, (layers, device) in enumerate(zip(ranges, placements, strict=True)):
        values = {
            "stage": str(stage),
            "first": str(layers.first),
            "last": str(layers.last),
            "input": TOKENS if stage == 0 else _states(manifest.hidden),
            "output": _logits(manifest.vocabulary) if stage == last else _states(manifest.hidden),
        }
        about = f"layers {layers.first} to {layers.last - 1} on {device}"
        found.append(
            ModelPart(
                template="llm_stage",
                name=f"{name}-stage-{stage}",
                about=about,
                values=values | reserves | _on(device, spec),
            )
        )
    return found


TOKENS = '{ name: "tokens" data_type: TYPE_INT64 dims: [ -1, -1 ] }'
STEP_INPUTS = ("driver", "row", "lengths", "commands")
"""The control inputs of every stage."""


def _states(hidden: int) -> str:
    return f'{{ name: "hidden" data_type: TYPE_FP32 dims: [ -1, -1, {hidden} ] }}'


def _logits(vocabulary: int) -> str:
    return f'{{ name: "logits" data_type: TYPE_FP32 dims: [ -1, {vocabulary} ] }}'


def _step(name: str, stage: int, last: int) -> str:
    """One step of the ensemble: the inputs and outputs of stage `stage`; hidden states are numbered."""
    taken = ("tokens", "tokens") if stage == 0 else ("hidden", f"hidden_{stage}")
    given = ("logits", "logits") if stage == last else ("hidden", f"hidden_{stage + 1}")
    inputs = [taken, *((key, key) for key in STEP_INPUTS)]
    lines = [f'      input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs]
    lines.append(f'      output_map {{ key: "{given[0]}" value: "{given[1]}" }}')
    inner = "\n".join(lines)
    return f'{{\n      model_name: "{name}-stage-{stage}" model_version: -1\n{inner}\n    }}'
