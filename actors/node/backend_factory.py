"""Makes backends from command-line words and settings. A backend's packages are imported when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from actors.backends.base import Backend
from actors.config.layers import settings_error
from actors.installation.optional_imports import is_installed, needs_extra
from orchestration.errors import InvalidRequest

BACKENDS = ("onnx", "openvino", "triton", "openai", "echo", "replay")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedName:
    """A model to serve: its name here and in the upstream."""

    name: str
    """Its name here."""
    upstream: str
    """Its name in the upstream."""

    @classmethod
    def parse(cls, text: str) -> ServedName:
        """`NAME` or `NAME=UPSTREAM_NAME`."""
        name, _, upstream = text.partition("=")
        if not name:
            raise InvalidRequest(f"--serve {text!r} has no model name; write NAME or NAME=UPSTREAM_NAME")
        return cls(name=name, upstream=upstream or name)


def onnx_backend(folders: Sequence[Path], options: Mapping[str, Any]) -> Backend:
    """ONNX Runtime in this process, over model folders. Raises `ExtraMissing` without its packages."""
    with needs_extra("onnx", "the onnx backend"):
        from actors.engine.onnx_backend import OnnxBackend
    from actors.engine.settings import OnnxSettings

    return OnnxBackend(folders, _settings("onnx", OnnxSettings, options))


def openvino_backend(folders: Sequence[Path], options: Mapping[str, Any]) -> Backend:
    """OpenVINO in this process, over model folders. Raises `ExtraMissing` without its packages."""
    with needs_extra("openvino", "the openvino backend"):
        from actors.engine.openvino_backend import OpenVinoBackend
    from actors.engine.settings import OpenVinoSettings

    return OpenVinoBackend(folders, _settings("openvino", OpenVinoSettings, options))


def local_backend(
    kind: str, folders: Sequence[Path], onnx: Mapping[str, Any], openvino: Mapping[str, Any]
) -> Backend:
    """The backend of `orchestra up`: `onnx`, `openvino`, or the faster of them for `auto`.

    `onnx` and `openvino` are their settings; any for `onnx` makes `auto` choose it.
    """
    if kind == "auto":
        kind = "openvino" if not onnx and openvino_is_faster() else "onnx"
    return openvino_backend(folders, openvino) if kind == "openvino" else onnx_backend(folders, onnx)


def openvino_is_faster() -> bool:
    """Whether OpenVINO is installed and the processor is of a kind on which it was measured to be faster."""
    try:
        return is_installed("openvino") and " avx512f " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def openai_backend(serve: Sequence[ServedName], options: Mapping[str, Any]) -> Backend:
    """Any server that speaks the OpenAI API."""
    from actors.backends.openai import OpenAIBackend, OpenAISettings

    values = dict(options)
    if serve:
        values["models"] = {each.name: each.upstream for each in serve}
    if not values.get("base_url"):
        raise InvalidRequest("the openai backend needs --base-url, for example http://127.0.0.1:8000/v1")
    return OpenAIBackend(_settings("openai", OpenAISettings, values))


def triton_backend(serve: Sequence[ServedName], options: Mapping[str, Any]) -> Backend:
    """NVIDIA's Triton, at the `url` of the options. Raises `ExtraMissing` without its packages."""
    with needs_extra("triton", "the triton backend"):
        from actors.triton.backend.backend import TritonBackend
        from actors.triton.backend.settings import TritonSettings
    values = dict(options)
    if serve:
        values["models"] = {each.name: each.upstream for each in serve}
    return TritonBackend(_settings("triton", TritonSettings, values))


def echo_backend(serve: Sequence[ServedName], options: Mapping[str, Any]) -> Backend:
    """No model: repeats the last message."""
    from actors.backends.echo import EchoBackend, EchoSettings

    values = dict(options)
    if serve:
        values["models"] = tuple(each.name for each in serve)
    return EchoBackend(_settings("echo", EchoSettings, values))


def replay_backend(serve: Sequence[ServedName], options: Mapping[str, Any]) -> Backend:
    """Recorded answers of models, from the file in the option `records`."""
    from actors.backends.replay import ReplayBackend, ReplaySettings

    values = dict(options)
    if serve:
        values["models"] = tuple(each.name for each in serve)
    if not values.get("records"):
        raise InvalidRequest("the replay backend needs --records, a file of recorded answers")
    return ReplayBackend(_settings("replay", ReplaySettings, values))


def _settings(section: str, kind: Any, options: Mapping[str, Any]) -> Any:
    try:
        return TypeAdapter(kind).validate_python(dict(options))
    except ValidationError as error:
        raise settings_error(error, kind, prefix=section) from error
