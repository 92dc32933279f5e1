"""A node that is to serve models of which some cannot be loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

from click.testing import CliRunner

from actors.cli.main import root
from actors.models.folder import write_manifest
from actors.models.gguf_import import import_gguf
from actors.models.manifest import ModelManifest
from tests.actors.models.tiny_gguf import Tiny, write
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import orchestra

NODE = "left-out-node"


def break_template(folder: Path) -> None:
    """As an importer of old let it pass."""
    manifest = ModelManifest.read(folder)
    write_manifest(folder, manifest.model_copy(update={"chat_template": "{% for m in messages %}"}))


def break_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model": {"type": "none"}}))
    write_manifest(folder, ModelManifest.read(folder))


def test_what_cannot_be_loaded_is_left_out_by_name_and_the_rest_is_served(
    nats_server: RunningNats, tmp_path: Path
) -> None:
    source = write(tmp_path / "tiny.gguf", Tiny(layers=1))
    models = tmp_path / "models"
    for name in ("sound", "template", "tokenizer", "cut"):
        import_gguf(source, name, models / name)
    break_template(models / "template")
    break_tokenizer(models / "tokenizer")
    os.truncate(models / "cut" / "model.onnx.data", 100)
    serve = [word for name in ("template", "cut", "sound", "tokenizer") for word in ("--serve", name)]
    words = ["node", "--backend", "onnx", "--id", NODE, *serve, "--nats", nats_server.url]
    with orchestra(*words, "--data", str(tmp_path)) as process:
        process.wait_for("serves")
        command = ["status", "--nats", nats_server.url]
        shown = CliRunner().invoke(root, command, catch_exceptions=False).stdout
        told = json.loads(CliRunner().invoke(root, [*command, "--json"], catch_exceptions=False).stdout)
    (node,) = [each for each in told["nodes"] if each["id"] == NODE]
    assert node["models"] == ["sound"]
    assert sorted(node["left_out"]) == ["cut", "template", "tokenizer"]
    assert f"node {NODE} does not serve template: the model's chat template cannot be compiled" in shown
    assert "model.onnx.data is 100 bytes long" in node["left_out"]["cut"]
