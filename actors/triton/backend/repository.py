"""Loads, unloads and configures the batching of a model in a server's repository."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.json_format import MessageToJson
from tritonclient.grpc import model_config_pb2

from actors.triton.backend.client import READY, UNLOADING, TritonClient
from actors.triton.backend.served_model import ServedModel
from orchestration.errors import InvalidRequest, Unavailable

PIPELINE = "{}-pipeline"
"""The ensemble of a partitioned model's stages. Its driver calls it, which Triton does not know."""
_POLL_S = 0.02


async def load_model(server: TritonClient, upstream: str) -> None:
    """Load a model, and its pipeline if it has one. A ready model is left alone, as Triton would restart its
    process. Raises Triton's error."""
    states, pipeline = await server.index(), PIPELINE.format(upstream)
    for name in (pipeline, upstream) if pipeline in states else (upstream,):
        if states.get(name) != READY:
            await server.load(name)


async def unload_model(server: TritonClient, upstream: str, timeout_s: float) -> None:
    """Unload a model and its pipeline once its requests have ended. Raises `Unavailable` if that takes longer
    than `timeout_s` seconds; Triton unloads it later anyway."""
    await server.unload(upstream)
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    while (await server.index()).get(upstream) in (READY, UNLOADING):
        if loop.time() > until:
            limit = f"{timeout_s:g} s (unload_timeout_s)"
            raise Unavailable(
                f"model {upstream!r} at {server.host} is still in use: not unloaded within {limit}"
            )
        await asyncio.sleep(_POLL_S)
    pipeline = PIPELINE.format(upstream)
    if pipeline in await server.index():
        await server.unload(pipeline)


async def set_batching(
    server: TritonClient, model: ServedModel, window_s: float, sizes: Sequence[int]
) -> bool:
    """Set the maximum queue delay (`window_s`) and the preferred batch sizes of an embedding model. False if
    unchanged.

    Triton accepts only a whole configuration, and starts the model's process again beside the old one: about
    4 s of a core and twice the memory meanwhile; no request fails. It applies to the steps that prefer batch
    sizes. Raises `InvalidRequest` if there is none.
    """
    if not sizes or min(sizes) < 1 or window_s < 0:
        raise InvalidRequest(f"invalid batching: sizes {tuple(sizes)} within {window_s:g} s", param="sizes")
    steps = [
        config
        for name in model.steps or (model.upstream,)
        if batches_by_size(config := await server.config(name))
    ]
    if not steps:
        raise InvalidRequest(f"model {model.card.name!r} does not batch dynamically", param="model")
    changed = False
    for config in steps:
        updated = model_config_pb2.ModelConfig()
        updated.CopyFrom(config)
        batching = updated.dynamic_batching
        del batching.preferred_batch_size[:]
        batching.preferred_batch_size.extend(sorted({min(size, config.max_batch_size) for size in sizes}))
        batching.max_queue_delay_microseconds = round(window_s * 1e6)
        if updated != config:
            await server.load(config.name, MessageToJson(updated, preserving_proto_field_name=True))
            changed = True
    return changed


def batches_by_size(config: model_config_pb2.ModelConfig) -> bool:
    """Whether it has preferred batch sizes, so that requests wait for a batch."""
    return config.HasField("dynamic_batching") and bool(config.dynamic_batching.preferred_batch_size)
