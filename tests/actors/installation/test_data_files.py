from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from actors.installation.data_files import DataFilesMissing, data_folder

_ROOT = Path(__file__).resolve().parents[3]


def test_the_checkout_has_the_servers_configuration_and_the_declarations() -> None:
    folder = data_folder("nats")
    assert folder == _ROOT / "nats"
    assert (folder / "server.conf").is_file()
    assert (folder / "streams.yaml").is_file()


def test_an_installed_copy_finds_its_own_files_and_not_the_client_library(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(_ROOT / "nats", site / "actors" / "data" / "nats")
    (site / "nats").mkdir()  # where nats-py lies
    (site / "actors" / "installation").mkdir()
    shutil.copy(
        _ROOT / "actors" / "installation" / "data_files.py",
        site / "actors" / "installation" / "data_files.py",
    )
    code = "import actors.installation.data_files as d; print(d.data_folder('nats'))"
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert Path(found) == site / "actors" / "data" / "nats"


def test_a_copy_without_the_files_is_called_incomplete(tmp_path: Path) -> None:
    (tmp_path / "actors").mkdir()
    (tmp_path / "nats").mkdir()
    with pytest.raises(DataFilesMissing, match="this installation is incomplete"):
        data_folder("nats", package=tmp_path / "actors")


def test_the_folder_nats_never_shadows_the_client_library() -> None:
    # `import nats` must find nats-py also from the root of a checkout
    found = [path for path in (_ROOT / "nats").rglob("*") if path.suffix in {".py", ".pyi", ".pyc", ".so"}]
    assert found == []
    folders = {path.name for path in (_ROOT / "nats").rglob("*") if path.is_dir()}
    assert not folders & {"server", "client", "jetstream"}
    code = "import nats, nats.aio.client; print(nats.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "site-packages" in where
