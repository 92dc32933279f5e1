"""What the names of models say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.trust.families import base_name, family_of, parse_name, same_model


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct-AWQ", "llama"),
        ("llama3.1:8b", "llama"),
        ("codellama:34b", "llama"),
        ("dolphin-2.9-llama3-8b", "llama"),
        ("gpt-4o-mini-2024-07-18", "gpt"),
        ("gpt-35-turbo", "gpt"),
        ("text-davinci-003", "gpt"),
        ("gpt3-6b-finetuning", "gpt"),
        ("openai/gpt-oss:20b", "gpt"),
        ("chatgpt-4o-latest", "gpt"),
        ("o1-preview", "gpt"),
        ("o4-mini-2025-04-16", "gpt"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "gpt"),
        ("claude-3-5-sonnet-20241022", "claude"),
        ("bedrock/anthropic.claude-3-haiku-20240307-v1:0", "claude"),
        ("models/gemini-1.5-flash-002", "gemini"),
        ("gemma3:4b", "gemma"),
        ("qwen2.5-72b-instruct-q4_k_m.gguf", "qwen"),
        ("qwq-32b-preview", "qwen"),
        ("deepseek-ai/DeepSeek-V3", "deepseek"),
        ("deepseek-r1-distill-llama-70b", "deepseek"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mistral"),
        ("mathstral-7b", "mistral"),
        ("open-mistral-nemo", "mistral"),
        ("phi-3-mini-4k-instruct", "phi"),
        ("yi-6b-chat", "yi"),
        ("c4ai-command-r-v01", "command"),
        ("ai21.jamba-1-5-large-v1:0", "jamba"),
        ("amazon.nova-pro-v1:0", "nova"),
        ("ibm/granite-3.1-8b-instruct", "granite"),
        ("chatglm3-6b", "glm"),
        ("nemotron-4-340b-instruct", "nemotron"),
        ("smollm2-135m", "smollm"),
        ("foo-7b-instruct-Q4_K_M.gguf", "foo"),
        ("acme/foo-13b@node-1", "foo"),
    ],
)
def test_a_model_belongs_to_the_family_that_its_name_says(model: str, family: str) -> None:
    assert family_of(model) == family


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("my-gpt-4-killer-1b", "gpt"),
        ("gpt-4-killer", "gpt"),
        ("gpt-neo-2.7b", "gpt"),
        ("gpt4all-13b", "gpt"),
        ("minigpt-4", "gpt"),
        ("opus-codec", "claude"),
        ("claude-7b", "claude"),
        ("gemini-distill-3b", "gemini"),
        ("nova-3", "nova"),
        ("command-line-helper", "command"),
        ("philosopher-7b", "phi"),
        ("yield-curve", "yi"),
        ("o-ring", "gpt"),
        ("bloom-filter", "bloom"),
        ("our-granite-countertops", "granite"),
    ],
)
def test_a_name_that_merely_contains_a_familys_letters_is_its_own_family(model: str, family: str) -> None:
    assert family_of(model) != family
    assert not parse_name(model).line


@pytest.mark.parametrize(
    "copies",
    [
        (
            "llama3.1:70b",
            "meta-llama/Llama-3.1-70B-Instruct-AWQ",
            "us.meta.llama3-1-70b-instruct-v1:0",
            "accounts/fireworks/models/llama-v3p1-70b-instruct",
            "Meta-Llama-3.1-70B-Instruct-Turbo",
            "databricks-meta-llama-3-1-70b-instruct",
            "meta-llama_Llama-3.1-70B-Instruct@node-2",
            "unsloth/Meta-Llama-3.1-70B-Instruct-bnb-4bit",
            "RedHatAI/Llama-3.1-70B-Instruct-quantized.w8a8",
            "turboderp/Llama-3.1-70B-Instruct-exl2-4.0bpw",
            "hf.co/bartowski/Meta-Llama-3.1-70B-Instruct-GGUF:Q4_K_M",
        ),
        (
            "llama-3.3-70b-versatile",
            "us.meta.llama3-3-70b-instruct-v1:0",
            "llama3.3:70b",
            "llama-3.3-70b:free",
        ),
        ("gpt-3.5-turbo", "gpt-35-turbo", "gpt-3.5-turbo-0125", "gpt-3.5-turbo-16k"),
        ("gpt-4o", "gpt-4o-2024-08-06", "openai/gpt-4o", "gpt-4o-latest", "azure/gpt-4o@a"),
        (
            "claude-3.5-sonnet",
            "claude-3-5-sonnet-20241022",
            "claude-3-5-sonnet-v2@20241022",
            "anthropic.claude-3-5-sonnet-20240620-v1:0",
            "claude-3-5-sonnet-latest",
        ),
        ("claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4.5", "claude-4.5-sonnet"),
        ("models/gemini-1.5-flash-002", "gemini-1.5-flash-latest", "google/gemini-1.5-flash"),
        (
            "qwen2.5:7b",
            "qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf",
            "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4",
        ),
        ("qwen3:30b", "Qwen/Qwen3-30B-A3B-GGUF"),
        ("mixtral:8x7b", "open-mixtral-8x7b", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("phi3:mini", "microsoft/Phi-3-mini-4k-instruct", "phi-3-mini-128k-instruct-onnx"),
        ("deepseek-r1:70b", "deepseek-r1-distill-llama-70b"),
        ("foo-7b", "acme/Foo-7B-Instruct-Q4_K_M.gguf", "foo:7b@node", "foo-7b-2024-05-01"),
    ],
)
def test_copies_of_a_model_under_other_names_are_one_model(copies: tuple[str, ...]) -> None:
    assert {base_name(copy) for copy in copies} == {base_name(copies[0])}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4", "gpt-4-turbo"),
        ("gpt-4o", "o4-mini"),
        ("gpt-4o-mini", "ft:gpt-4o-mini:org::id"),
        ("claude-3-opus", "claude-3-sonnet"),
        ("llama3.1:8b", "llama3.1:70b"),
        ("llama-3-8b", "llama-3.1-8b"),
        ("llama-3-3b", "llama-3-3-70b"),
        ("mistral-7b-instruct-v0.1", "mistral-7b-instruct-v0.2"),
        ("qwen2.5:7b", "qwen2.5-coder:7b"),
        ("deepseek-v3", "deepseek-r1"),
        ("echo", "echo-2"),
        ("foo-7b", "foo-13b"),
    ],
)
def test_siblings_are_not_the_same_model(one: str, other: str) -> None:
    assert not same_model(one, other)


@given(st.text(max_size=400))
def test_any_text_is_a_name(model: str) -> None:
    assert base_name(model) == base_name(model)
    assert len(family_of(model)) <= 1_200  # lower case can be longer than what was written
