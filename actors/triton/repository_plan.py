"""What goes into a repository for one installed model: which templates, under which names, with which values.

The templates are the folders of `triton_models/`; what they may ask for is in its README.
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
    """One model of Triton's: a template, its name in the repository, the values for the template."""

    template: str
    name: str
    about: str
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What is wanted of a model: cut into `partitions`, on `device`, a chat model's layers by `runtime`."""

    partitions: int = 1
    device: str = "cpu"
    runtime: Runtime = "torch"


def plan_parts(manifest: ModelManifest, spec: ModelSpec) -> list[ModelPart]:
    """The parts of the model; the one that clients call is the first and has the model's own name.

    Raises InvalidRequest for a spec that this model cannot meet.
    """
    if spec.partitions < 1:
        raise InvalidRequest(f"{spec.partitions} partitions are none: 1 or more", param="partitions")
    if manifest.kind == "embedding":
        if spec.partitions != 1:
            raise InvalidRequest(
                f"{manifest.name} is an embedding model, which is not partitioned", param="partitions"
            )
        return _embedding(manifest, spec)
    if spec.partitions == 1:
        (device,) = parse_devices(spec.device, 1)
        about = f"all {manifest.layers} layers on {device} by {spec.runtime}"
        return [ModelPart(template="llm", name=manifest.name, about=about, values=_on(device, spec))]
    if spec.runtime != "torch":
        raise InvalidRequest("only torch runs a share of the layers: leave --runtime away", param="runtime")
    return _partitioned(manifest, spec)


def common_values(manifest: ModelManifest, weights: Path) -> dict[str, str]:
    """What every template may ask for; `weights` is the model's folder as the part finds it."""
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
    # The driver's and all stages' caches are of one size, so they agree on how memory is taken.
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
"""What every stage is told beside its input."""


def _states(hidden: int) -> str:
    return f'{{ name: "hidden" data_type: TYPE_FP32 dims: [ -1, -1, {hidden} ] }}'


def _logits(vocabulary: int) -> str:
    return f'{{ name: "logits" data_type: TYPE_FP32 dims: [ -1, {vocabulary} ] }}'


def _step(name: str, stage: int, last: int) -> str:
    """One step of the ensemble: what stage `stage` takes and gives; the states between have numbers."""
    taken = ("tokens", "tokens") if stage == 0 else ("hidden", f"hidden_{stage}")
    given = ("logits", "logits") if stage == last else ("hidden", f"hidden_{stage + 1}")
    inputs = [taken, *((key, key) for key in STEP_INPUTS)]
    lines = [f'      input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs]
    lines.append(f'      output_map {{ key: "{given[0]}" value: "{given[1]}" }}')
    inner = "\n".join(lines)
    return f'{{\n      model_name: "{name}-stage-{stage}" model_version: -1\n{inner}\n    }}'
