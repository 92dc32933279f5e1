"""The chat model in Triton: one batch that requests join at every step, against one request at a time.

`python -m tests.bench.triton_llm [--at-once 1 4 16] [--tokens 48]`: tokens per second of SmolLM2 by torch and
by onnxruntime inside the model, and of the ONNX node's engine without Triton, on prompts alike.
"One at a time" is the same server asked for the next request when the one before has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any, cast

import tritonclient.grpc.aio as grpc

from actors.engine.onnx_backend import OnnxBackend
from orchestration.messages import ChatGeneration, ChatMessage, Finish, Sampling
from tests.actors.triton.llm import ask, write_llm
from tests.fixtures.models import smollm2_folder
from tests.fixtures.triton import start_triton

_numbers = count()

Ask = Callable[[str], Awaitable[int]]
"""Answers a prompt; gives the tokens written."""


def prompts(many: int) -> list[str]:
    return [f"Tell a long story about the number {next(_numbers)}." for _ in range(many)]


async def together(ask_one: Ask, many: int) -> float:
    """Tokens per second of `many` requests at once."""
    began = time.perf_counter()
    written = sum(await asyncio.gather(*(ask_one(each) for each in prompts(many))))
    return written / (time.perf_counter() - began)


async def in_turn(ask_one: Ask, many: int) -> float:
    """Tokens per second of `many` requests one after another."""
    began = time.perf_counter()
    written = sum([await ask_one(each) for each in prompts(many)])
    return written / (time.perf_counter() - began)


async def row(name: str, ask_one: Ask, at_once: list[int]) -> None:
    await together(ask_one, 2)
    serial = await in_turn(ask_one, 3)
    figures = [await together(ask_one, many) for many in at_once]
    shown = "".join(f"{each:9.0f}" for each in figures)
    print(f"{name:26}{serial:14.0f}{shown}{figures[-1] / serial:10.1f} times", flush=True)


async def triton_rows(address: str, at_once: list[int], tokens: int) -> None:
    async with grpc.InferenceServerClient(address) as client:
        for runtime in ("torch", "onnxruntime"):

            async def ask_one(text: str, model: str = runtime) -> int:
                told = await ask(client, model, text, max_tokens=tokens)
                assert not told.error, told.error
                return told.tokens

            await row(f"Triton, {runtime}", ask_one, at_once)


async def node_row(at_once: list[int], tokens: int) -> None:
    backend = OnnxBackend([smollm2_folder()])
    await backend.start()

    async def ask_one(text: str) -> int:
        generation = ChatGeneration(
            id=f"bench.{next(_numbers)}",
            model="smollm2-135m",
            messages=(ChatMessage(role="user", content=text),),
            sampling=Sampling(temperature=0, max_tokens=tokens),
        )
        async with aclosing(cast(Any, backend.generate(generation))) as outputs:
            async for output in outputs:
                if isinstance(output, Finish):
                    return output.usage.completion_tokens
        raise AssertionError("the generation ended without a Finish")

    try:
        await row("ONNX node, no Triton", ask_one, at_once)
    finally:
        await backend.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    heads = "".join(f"{many:9}" for many in options.at_once)
    print(f"{'tokens/s, at once:':26}{'one at a time':>14}{heads}{'last against one at a time':>30}")
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        server = start_triton(Path(folder))
        try:
            for runtime in ("torch", "onnxruntime"):
                write_llm(server.repository, runtime, smollm2_folder(), runtime=runtime)
                server.load(runtime)
            asyncio.run(triton_rows(server.address, options.at_once, options.tokens))
        finally:
            server.stop()
    asyncio.run(node_row(options.at_once, options.tokens))


if __name__ == "__main__":
    main()
