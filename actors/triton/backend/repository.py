"""Loading and unloading what belongs to one model of a repository, and setting how it batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.json_format import MessageToJson
from tritonclient.grpc import model_config_pb2

from actors.triton.backend.client import READY, UNLOADING, TritonClient
from actors.triton.backend.served_model import ServedModel
from orchestration.errors import InvalidRequest, Unavailable

PIPELINE = "{}-pipeline"
"""The stages of a partitioned model, as an ensemble. Its driver calls it, which Triton does not know."""
_POLL_S = 0.02


async def load_model(server: TritonClient, upstream: str) -> None:
    """Load a model, and the pipeline that it drives if it has one; one that is ready is left alone, as Triton
    would start its process anew. Raises what is wrong with it."""
    states, pipeline = await server.index(), PIPELINE.format(upstream)
    for name in (pipeline, upstream) if pipeline in states else (upstream,):
        if states.get(name) != READY:
            await server.load(name)


async def unload_model(server: TritonClient, upstream: str, timeout_s: float) -> None:
    """Unload a model and what only it uses, once what runs on it has ended. Raises `Unavailable` if that is
    not so within `timeout_s` seconds; it is unloaded then all the same, when it has ended."""
    await server.unload(upstream)
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    while (await server.index()).get(upstream) in (READY, UNLOADING):
        if loop.time() > until:
            limit = f"unload_timeout_s {timeout_s:g}"
            raise Unavailable(f"model {upstream!r} at {server.host} is at work: not unloaded within {limit}")
        await asyncio.sleep(_POLL_S)
    pipeline = PIPELINE.format(upstream)
    if pipeline in await server.index():
        await server.unload(pipeline)


async def set_batching(
    server: TritonClient, model: ServedModel, window_s: float, sizes: Sequence[int]
) -> bool:
    """Have the batches of an embedding model wait `window_s` for company and prefer `sizes`; False if that is
    in force already.

    Triton takes no change but a whole configuration, for which it starts the model's process anew beside the
    old one: about 4 s of a core and twice the memory meanwhile, and no request fails. It goes to the steps
    that prefer sizes: those are there to wait for company. Raises `InvalidRequest` for a model without one.
    """
    if not sizes or min(sizes) < 1 or window_s < 0:
        raise InvalidRequest(f"no batches of {tuple(sizes)} within {window_s:g} s", param="sizes")
    steps = [
        config
        for name in model.steps or (model.upstream,)
        if batches_by_size(config := await server.config(name))
    ]
    if not steps:
        raise InvalidRequest(f"model {model.card.name!r} does not batch dynamically", param="model")
    changed = False
    for config in steps:
        wanted = model_config_pb2.ModelConfig()
        wanted.CopyFrom(config)
        batching = wanted.dynamic_batching
        del batching.preferred_batch_size[:]
        batching.preferred_batch_size.extend(sorted({min(size, config.max_batch_size) for size in sizes}))
        batching.max_queue_delay_microseconds = round(window_s * 1e6)
        if wanted != config:
            await server.load(config.name, MessageToJson(wanted, preserving_proto_field_name=True))
            changed = True
    return changed


def batches_by_size(config: model_config_pb2.ModelConfig) -> bool:
    """Whether it prefers sizes of batches, and so is there to wait for company."""
    return config.HasField("dynamic_batching") and bool(config.dynamic_batching.preferred_batch_size)
