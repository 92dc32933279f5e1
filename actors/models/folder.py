"""A model's folder on disk: written atomically, and verified when it is read."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from actors.models.errors import CorruptModel, ModelStorage
from actors.models.manifest import MANIFEST, ModelManifest
from orchestration.errors import InvalidRequest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PIECE_BYTES = 1 << 20

LICENSE = "LICENSE"

Report = Callable[[str, float], None]
"""Called with a stage's name and its progress, 0 to 1."""


def check_name(name: str) -> str:
    """`name` if it is a valid model name. Raises `InvalidRequest` otherwise."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"invalid model name {name!r}: use up to 100 letters, digits and '._-', a letter or digit first",
            param="name",
        )
    return name


def sha256(*files: Path, progress: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of files, one after another, in hexadecimal; `progress` gets the bytes of each chunk."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
                if progress:
                    progress(len(piece))
    return digest.hexdigest()


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Convert the operating system's write errors in `folder` to `ModelStorage`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelStorage(f"the disk under {folder} is full; free some space and try again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ModelStorage(
                f"cannot write models to {folder}: {error.strerror}; choose another place with --data"
            ) from error
        raise


@contextmanager
def model_lock(models_dir: Path, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the model's lock, exclusively among processes; it is released when the process dies.

    `on_wait` is called before waiting for another process.
    """
    with storage_errors(models_dir):
        models_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(models_dir / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait:
                on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that replaces `folder` when the block ends without an error.

    Call it under `model_lock`: leftovers of a killed writer are removed. The caller writes the manifest last,
    so that a copy of a half-written folder does not look complete.
    """
    staging, old = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "old"))
    with storage_errors(folder.parent):
        for leftover in (staging, old):
            shutil.rmtree(leftover, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            _sync(staging)
            if folder.exists():
                folder.rename(old)
            staging.rename(folder)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Flush the files to disk before the rename, so that a power failure leaves no incomplete folder."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_manifest(folder: Path, manifest: ModelManifest) -> ModelManifest:
    """Write `manifest` with the SHA-256 and size of all other files, and return it."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    sizes = {path: (folder / path).stat().st_size for path in files}
    complete = manifest.model_copy(update={"files": files, "sizes": sizes})
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=2))
    return complete


def verify(folder: Path, *, hashes: bool = True) -> ModelManifest:
    """The manifest of an intact model folder.

    Checks that all files exist with their sizes, and with `hashes` their content (0.1 s for 160 MB). Raises
    `CorruptModel`, which names the file and the way out.
    """
    way_out = "install it again: orchestra models pull, or import"
    try:
        manifest = ModelManifest.read(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptModel(f"{folder} has no complete model: {MANIFEST} is missing; {way_out}") from error
    except ValidationError as error:
        raise CorruptModel(f"{folder / MANIFEST} is damaged; {way_out}") from error
    if manifest.outdated:
        raise CorruptModel(f"{folder} was imported by an older version of orchestra; {way_out}")
    for name, expected in manifest.files.items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else -1
        if size != manifest.sizes.get(name, size):
            found = "missing" if size < 0 else f"{size} bytes long, not {manifest.sizes[name]}"
            raise CorruptModel(f"{file} is {found}; {way_out}")
        if hashes and sha256(file) != expected:
            raise CorruptModel(
                f"{file} is damaged: its content has changed since the installation; {way_out}"
            )
    return manifest
