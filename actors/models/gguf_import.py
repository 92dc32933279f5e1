"""Imports a GGUF file of the llama architecture into a model folder, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.models.chat_template import ChatTemplate
from actors.models.errors import CorruptModel, UnsupportedModel
from actors.models.folder import LICENSE, Report, check_name, model_lock, replacing, sha256, write_manifest
from actors.models.gguf_parts import GgufModel
from actors.models.gguf_tokenizer import GgufTokenizer
from actors.models.graph import GraphWriter
from actors.models.llama import LlamaConfig, LlamaGraph
from actors.models.manifest import ModelManifest
from actors.models.tokenizer import TOKENIZER, Tokenizer


def import_gguf(
    file: Path,
    name: str,
    folder: Path,
    progress: Report | None = None,
    *,
    source: str = "",
    source_sha256: str = "",
) -> ModelManifest:
    """Import `file`, or all parts if it is one of them, as the model `name` into `folder`, which is
    replaced atomically at the end.

    `source_sha256` saves reading the file once more when it is known already. Blocks for seconds and uses
    the memory of the largest tensor three times over. Raises `UnsupportedModel` (another architecture,
    tensor type or tokenizer, by name), `CorruptModel`, `ModelStorage`, and `InvalidRequest` for the name.
    """
    check_name(name)
    if not file.is_file():
        raise CorruptModel(f"there is no file {file}")
    report = progress or (lambda stage, done: None)
    with model_lock(folder.parent, folder.name):
        return import_gguf_locked(
            file,
            name,
            folder,
            report,
            source=source or f"file:{file.resolve()}",
            source_sha256=source_sha256,
        )


def import_gguf_locked(
    file: Path,
    name: str,
    folder: Path,
    report: Report,
    *,
    source: str,
    source_sha256: str = "",
    license_text: str = "",
    license_name: str = "",
) -> ModelManifest:
    """`import_gguf` for a caller that holds the lock of `folder`.

    The licence is what the file's metadata says unless `license_name` is given.
    """
    with GgufModel(file) as gguf, replacing(folder) as staging:
        architecture = gguf.metadata.get("general.architecture")
        if architecture != "llama":
            problem = (
                "names no architecture" if architecture is None else f"has the architecture {architecture!r}"
            )
            raise UnsupportedModel(f"{gguf.path.name} {problem}; this importer runs 'llama'")
        tokenizer = GgufTokenizer.of(gguf.metadata)
        fields = _tokenizer_fields(tokenizer, gguf.metadata.get("tokenizer.chat_template"))
        (staging / TOKENIZER).write_text(tokenizer.json, encoding="utf-8")
        _check(staging, tokenizer, fields)
        config = LlamaConfig.of(gguf)
        with GraphWriter(staging) as writer:
            graph = LlamaGraph(gguf, config, writer, lambda done: report("converting weights", done))
            graph.write()
            writer.save("orchestra")
        report("writing tokenizer and manifest", 0.0)
        license_name = license_name or str(gguf.metadata.get("general.license", ""))
        (staging / LICENSE).write_text(license_text or f"{license_name or 'unknown'}\n", encoding="utf-8")
        manifest = ModelManifest(
            name=name,
            kind="chat",
            architecture="llama",
            context_tokens=config.context,
            vocabulary=config.vocabulary,
            layers=config.layers,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            hidden=config.hidden,
            parameters=graph.parameters,
            weights=graph.weights,
            license=license_name,
            source=source,
            source_sha256=source_sha256 or sha256(*gguf.paths),
            **fields,
        )
        complete = write_manifest(staging, manifest)
        report("writing tokenizer and manifest", 1.0)
    return complete


def _check(folder: Path, tokenizer: GgufTokenizer, fields: dict[str, Any]) -> None:
    """Check what a node checks at the load. Raises `CorruptModel` and `UnsupportedModel`."""
    loaded = Tokenizer.load(folder)
    if loaded.vocabulary != len(tokenizer.tokens):
        raise CorruptModel(
            f"the tokenizer has {len(tokenizer.tokens)} tokens, and {loaded.vocabulary} when it is loaded"
        )
    if fields["chat_template"] is not None:
        ChatTemplate(
            fields["chat_template"], fields["bos_token"], fields["eos_token"], loaded.control_tokens
        ).check()


def _tokenizer_fields(tokenizer: GgufTokenizer, template: object) -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "add_bos": tokenizer.add_bos,
        "eog_token_ids": tokenizer.eog_token_ids,
        "chat_template": template if isinstance(template, str) else None,
        "bos_token": tokenizer.text(tokenizer.bos_token_id),
        "eos_token": tokenizer.text(tokenizer.eos_token_id),
    }
