"""Writes a model repository for Triton: configurations, code, and links to installed models."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from actors.installation.data_files import data_folder
from actors.models.catalogue import catalogue
from actors.models.folder import storage_errors, verify
from actors.models.manifest import MANIFEST, ModelManifest
from actors.models.pull import installed
from actors.triton.config import CONFIG, check_path, parse
from actors.triton.errors import BadRepository
from actors.triton.repository_plan import ModelPart, ModelSpec, common_values, plan_parts
from orchestration.errors import InvalidRequest, UnknownModel

TEMPLATES = "triton_models"
WEIGHTS = "weights"
"""The link to the installed model's folder, next to `model.py`."""

OnPart = Callable[[ModelPart], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """A checked model of the repository that is not written yet."""

    part: ModelPart
    config: str
    model_py: Path | None
    weights: Path | None
    """The installed model's folder, if the part reads it."""


def write_repository(
    out: Path,
    models_folder: Path,
    names: Iterable[str],
    spec: ModelSpec,
    *,
    force: bool = False,
    on_part: OnPart = lambda part: None,
) -> list[str]:
    """Write the models `names`, installed in `models_folder`, into the repository `out`, which is created.

    With `force` it may contain models: those of `names` are replaced, with all their parts. `on_part` is
    called for each written part. Returns the names of all parts. Everything is checked before the first
    write, and a model's folder appears atomically. Raises `BadRepository` if `out` is not empty or not a
    folder, `UnknownModel`, `InvalidRequest`, `CorruptModel`, `ModelStorage`.
    """
    out = out.expanduser().absolute()
    names = list(dict.fromkeys(names))
    _check_place(out, force)
    plans = {name: _planned(out, installed_model(name, models_folder), spec) for name in names}
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".orchestra-", dir=out) as staging:
            for name, plan in plans.items():
                _remove(out, name)
                for each in plan:
                    _write(Path(staging), out, each)
                    on_part(each.part)
    return [each.part.name for plan in plans.values() for each in plan]


def installed_model(name: str, models_folder: Path) -> Path:
    """The folder of an installed model. Raises `UnknownModel`, `InvalidRequest` with the way out, and
    `CorruptModel`."""
    folder = models_folder / name
    if (folder / MANIFEST).is_file():
        verify(folder, hashes=False)
        return folder
    if name in catalogue():
        raise InvalidRequest(
            f"the model {name!r} is not installed in {models_folder}: orchestra models pull {name}",
            param="model",
        )
    known = {*catalogue(), *(model.manifest.name for model in installed(models_folder))}
    raise UnknownModel.of(name, sorted(known))


def _check_place(out: Path, force: bool) -> None:
    check_path(out)
    if out.exists() and not out.is_dir():
        raise BadRepository(f"{str(out)!r} is a file: a model repository is a folder", param="out")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise BadRepository(
            f"{str(out)!r} is not empty; --force replaces the models of the same names in it, and keeps the "
            "others",
            param="out",
        )


def _planned(out: Path, folder: Path, spec: ModelSpec) -> list[PlannedModel]:
    manifest = ModelManifest.read(folder)
    found = []
    for part in plan_parts(manifest, spec):
        template = data_folder(TEMPLATES) / part.template
        link = out / part.name / "1" / WEIGHTS
        values = common_values(manifest, link) | part.values
        text = Template((template / CONFIG).read_text(encoding="utf-8")).substitute(
            {key: _escaped(value) if key == "folder" else value for key, value in values.items()}
        )
        config = parse(text, f"{part.name}/{CONFIG}")
        if config.name != part.name:
            raise BadRepository(
                f"the template {part.template} gives the name {config.name!r}, not {part.name!r}"
            )
        model_py = template / "1" / "model.py"
        found.append(
            PlannedModel(
                part=part,
                config=text,
                model_py=model_py if model_py.is_file() else None,
                weights=folder.resolve() if "folder" in config.parameters else None,
            )
        )
    return found


def _escaped(text: str) -> str:
    """Escape a string for protobuf's text format."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _write(staging: Path, out: Path, model: PlannedModel) -> None:
    made = staging / model.part.name
    version = made / "1"
    version.mkdir(parents=True)
    (made / CONFIG).write_text(model.config, encoding="utf-8")
    if model.model_py is not None:
        shutil.copyfile(model.model_py, version / "model.py")
    if model.weights is not None:
        (version / WEIGHTS).symlink_to(model.weights)
    made.rename(out / model.part.name)


def _remove(out: Path, name: str) -> None:
    """Remove all parts of this model, also those of another number of partitions."""
    ours = re.compile(re.escape(name) + r"(-pipeline|-stage-[0-9]+|-tokenizer|-encoder|-pooling)?")
    for path in out.iterdir():
        if ours.fullmatch(path.name) and (path / CONFIG).is_file():
            shutil.rmtree(path)
