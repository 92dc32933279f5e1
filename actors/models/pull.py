"""Installs models: downloads, verifies and imports them into the models folder, atomically."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from actors.installation.optional_imports import needs_extra
from actors.models.catalogue import catalogue
from actors.models.download import Downloader, FileSpec, OnProgress, PullProgress
from actors.models.errors import CorruptModel, ModelStorage, UnsupportedModel
from actors.models.folder import check_name, model_lock, storage_errors, verify
from actors.models.manifest import MANIFEST, ModelManifest
from actors.models.source import all_parts, is_source, model_name, parse
from orchestration.errors import UnknownModel

_DOWNLOADS = ".downloads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A model in the models folder; `bytes` on disk."""

    folder: Path
    manifest: ModelManifest
    bytes: int


def installed(models_dir: Path) -> list[Installed]:
    """The complete models of `models_dir`, by name. Damaged ones are omitted."""
    found = []
    for path in sorted(models_dir.glob(f"[!.]*/{MANIFEST}")):
        try:
            manifest = verify(path.parent, hashes=False)
        except CorruptModel:
            continue
        size = path.stat().st_size + sum(manifest.sizes.values())
        found.append(Installed(folder=path.parent, manifest=manifest, bytes=size))
    return found


def ready(name: str, models_dir: Path) -> Path | None:
    """The folder of the installed model `name` if it is complete."""
    folder = models_dir / name
    return folder if name and _ready(folder, thorough=False) else None


def ensure(
    name_or_source: str,
    models_dir: Path,
    on_progress: OnProgress | None = None,
    *,
    name: str | None = None,
    sha256: str = "",
    thorough: bool = False,
) -> Path:
    """The folder of an installed model, which is pulled and imported first if needed.

    `name_or_source` is the name of an installed model or of one in the catalogue, or a source of a GGUF
    file, which becomes the model `name` (the file's, without its ending, unless given) and must have
    the `sha256` if one is given. An installed model is returned at once, without the network; with `thorough`
    its content is verified, and a damaged one is installed again. Safe to call in several processes. Blocks,
    up to minutes.

    Raises `UnknownModel`, `InvalidRequest`, `SourceUnavailable`, `CorruptModel`, `UnsupportedModel`,
    `ModelStorage`, and `ExtraMissing` before anything is downloaded.
    """
    report = on_progress or (lambda progress: None)
    plan = _plan(name_or_source, name, sha256) or _reimport_plan(name_or_source, models_dir)
    if plan is None:
        return _only_installed(check_name(name_or_source), models_dir)
    folder = models_dir / plan.name
    if _ready(folder, thorough):
        return folder
    waiting = PullProgress(stage="waiting for another pull", done=0, total=0)
    with model_lock(models_dir, plan.name, lambda: report(waiting)):
        if _ready(folder, thorough):
            return folder
        with storage_errors(models_dir):
            _check_space(models_dir, plan.needed_bytes)
            downloads = Downloader(models_dir / _DOWNLOADS / plan.name, report)
            if plan.format == "gguf":
                _pull_gguf(plan, downloads, folder, report)
            else:
                _pull_encoder(plan, downloads, folder, report)
            downloads.remove()
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _PullPlan:
    """The plan of a pull; `files` by their role."""

    name: str
    format: str
    files: dict[str, FileSpec]
    license: str = ""
    needed_bytes: int = 0


def _plan(name_or_source: str, name: str | None, digest: str) -> _PullPlan | None:
    """The plan for a source or a catalogue name; None for another name."""
    if is_source(name_or_source):
        source = parse(name_or_source)
        if not source.file_name.endswith(".gguf"):
            raise UnsupportedModel(f"{source} is not a .gguf file, the only kind that can be imported")
        name = check_name(name or model_name(source.file_name))
        parts = {
            f"weights {number}": FileSpec(source=part, sha256=digest if part == source else "")
            for number, part in enumerate(all_parts(source), 1)
        }
        return _PullPlan(name=name, format="gguf", files={"weights": parts.pop("weights 1")} | parts)
    entry = catalogue().get(name_or_source)
    if entry is None:
        return None
    return _PullPlan(
        name=name_or_source,
        format=entry.format,
        files={part: file.spec() for part, file in entry.files.items()},
        license=entry.license,
        needed_bytes=entry.needed_bytes,
    )


def _reimport_plan(name: str, models_dir: Path) -> _PullPlan | None:
    """The plan to import an outdated installed model again; None if it is current or its source is
    unknown."""
    try:
        manifest = ModelManifest.read(models_dir / check_name(name))
    except (OSError, ValidationError):
        return None
    if not manifest.outdated or not is_source(manifest.source):
        return None
    return _plan(manifest.source, manifest.name, manifest.source_sha256)


def _ready(folder: Path, thorough: bool) -> bool:
    try:
        verify(folder, hashes=thorough)
    except CorruptModel:
        return False
    return True


def _only_installed(name: str, models_dir: Path) -> Path:
    folder = models_dir / name
    if not folder.exists():
        known = {*catalogue(), *(model.manifest.name for model in installed(models_dir))}
        raise UnknownModel.of(name, sorted(known))
    verify(folder, hashes=False)
    return folder


def _check_space(models_dir: Path, needed: int) -> None:
    free = shutil.disk_usage(models_dir).free
    if free < needed:
        raise ModelStorage(
            f"the pull needs {needed / 1e6:.0f} MB under {models_dir}, but only {free / 1e6:.0f} MB are free;"
            " free some space, or choose another place with --data"
        )


def _pull_gguf(plan: _PullPlan, downloads: Downloader, folder: Path, report: OnProgress) -> None:
    # Imported here, as below: onnx and gguf take 25 MB and 0.2 s, which a ready model does not need.
    with needs_extra("onnx", "the import of a model"):
        from actors.models.gguf_import import import_gguf_locked

    files = downloads.fetch(plan.files)
    license_file = files.get("license")
    import_gguf_locked(
        files["weights"].path,
        plan.name,
        folder,
        lambda stage, done: report(PullProgress(stage=stage, done=done, total=1)),
        source=str(plan.files["weights"].source),
        source_sha256="" if "weights 2" in files else files["weights"].sha256,
        license_text=license_file.path.read_text(encoding="utf-8") if license_file else "",
        license_name=plan.license,
    )


def _pull_encoder(plan: _PullPlan, downloads: Downloader, folder: Path, report: OnProgress) -> None:
    with needs_extra("onnx", "the import of a model"):
        from actors.models.sentence_encoder import import_sentence_encoder

    files = downloads.fetch(plan.files)
    import_sentence_encoder(
        files["weights"].path,
        files["tokenizer"].path,
        files["config"].path,
        {
            "name": plan.name,
            "license": plan.license,
            "source": str(plan.files["weights"].source),
            "source_sha256": files["weights"].sha256,
        },
        folder,
        lambda stage, done: report(PullProgress(stage=stage, done=done, total=1)),
    )
