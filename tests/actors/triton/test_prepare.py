from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from actors.installation.optional_imports import ExtraMissing
from actors.triton import Incompatible, WrongVersion
from actors.triton.check import check_version
from actors.triton.locate import find_server
from actors.triton.prepare import STUB, check_numpy, prepare


def test_a_server_on_the_path_is_taken_before_the_wheels_and_knows_its_own_backends(tmp_path: Path) -> None:
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    found = find_server(search_path=str(tmp_path))
    assert (found.binary, found.wheel) == (binary, None)
    assert prepare(found, tmp_path).backends is None


def test_without_a_server_and_without_the_extra_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExtraMissing, match=r"orchestra-llm\[triton\]"):
        find_server(search_path=str(tmp_path), package="no_such_wheel")


def test_the_wheels_backends_are_linked_with_the_stub_of_this_python_and_mended_when_they_moved(
    tmp_path: Path,
) -> None:
    installation = find_server(search_path=str(tmp_path))
    prepared = prepare(installation, tmp_path)
    assert prepared.backends is not None
    stub = prepared.backends / "python" / STUB
    assert stub.is_symlink()
    assert stub.resolve().parent.name == f"{sys.version_info.major}.{sys.version_info.minor}"
    stub.unlink()
    stub.symlink_to("/of/an/older/wheel")
    prepare(installation, tmp_path)
    assert os.access(stub, os.X_OK)
    assert Path(prepared.environment["PATH"].split(":")[0]) == Path(sys.executable).parent


def test_numpy_2_is_refused_before_a_model_dies_of_it() -> None:
    check_numpy("1.26.4")
    with pytest.raises(Incompatible, match=r"numpy 2\.3\.1 .*numpy<2"):
        check_numpy("2.3.1")
    with pytest.raises(ExtraMissing, match="numpy"):
        check_numpy(None)


EXTENSIONS = ("model_repository", "statistics", "trace")


@pytest.mark.parametrize("version", ["2.30.0", "1.15.0", "3.0.1", "", "unknown"])
def test_a_server_of_another_version_is_refused_with_the_versions_that_do(version: str) -> None:
    with pytest.raises(WrongVersion, match=r"needs 2\.39 or a later 2\.x"):
        check_version(version, EXTENSIONS)


def test_a_server_that_cannot_load_models_is_refused() -> None:
    check_version("2.51.0", EXTENSIONS)
    with pytest.raises(WrongVersion, match="model_repository"):
        check_version("2.51.0", ("statistics",))
