"""A model whose outputs have types that this node cannot read is named, before it answers or as it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestration.errors import BackendFailed
from tests.actors.triton.backend.embeddings import vectors
from tests.actors.triton.backend.repository import (
    answered,
    backend_for,
    chat_model,
    embedding_model,
    saying,
    vllm_model,
)
from tests.fixtures.triton import RunningTriton

Write = Callable[[RunningTriton], str]


@pytest.mark.parametrize(
    ("write", "output", "said", "wanted"),
    [
        (chat_model, "text_output", "TYPE_FP32", "FP32, expected BYTES"),
        (vllm_model, "text_output", "TYPE_UINT8", "UINT8, expected BYTES"),
        (embedding_model, "embedding", "TYPE_FP64", "FP64, expected FP32"),
    ],
    ids=["chat", "vllm", "embedding"],
)
async def test_a_model_that_declares_an_output_of_another_type_is_refused(
    triton_server: RunningTriton, write: Write, output: str, said: str, wanted: str
) -> None:
    name = write(triton_server)
    declared = triton_server.repository / name / "config.pbtxt"
    lines = [
        line.replace("TYPE_STRING", said).replace("TYPE_FP32", said) if f'"{output}"' in line else line
        for line in declared.read_text().splitlines()
    ]
    declared.write_text("\n".join(lines))
    with pytest.raises(BackendFailed, match=rf"{name}.* its output {output} has type {wanted}"):
        async with backend_for(triton_server, name):
            pass
    triton_server.unload(name)


OTHER_TYPES = """

def of_other_types(name, values):
    if name == "text_output":
        values = np.array([7.0], np.float32)
    if name == "embedding":
        values = values.astype(np.float64)
    return pb_utils.Tensor(name, values)
"""


def gives_other_types(server: RunningTriton, name: str) -> None:
    code = server.repository / name / "1" / "model.py"
    code.write_text(code.read_text().replace("pb_utils.Tensor(", "of_other_types(") + OTHER_TYPES)


@pytest.mark.parametrize("write", [chat_model, vllm_model], ids=["chat", "vllm"])
async def test_text_of_another_type_than_declared_fails_the_answer(
    triton_server: RunningTriton, write: Write
) -> None:
    name = write(triton_server)
    gives_other_types(triton_server, name)
    async with backend_for(triton_server, name) as backend:
        with pytest.raises(
            BackendFailed, match=f"'{name}' returned text_output of type FP32, expected BYTES"
        ):
            await answered(backend, saying(name, "count 2"))
    triton_server.unload(name)


async def test_vectors_of_another_type_than_declared_fail_the_answer(triton_server: RunningTriton) -> None:
    name = embedding_model(triton_server)
    gives_other_types(triton_server, name)
    async with backend_for(triton_server, name) as backend:
        with pytest.raises(BackendFailed, match=f"'{name}' returned embedding of type FP64, expected FP32"):
            await vectors(backend, name, ["x"])
    triton_server.unload(name)
