"""Patterns that users bring, and what becomes of those that cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path
from shutil import copy

import pytest

from actors.patterns.plugins import load_catalogue
from actors.patterns.settings import PatternsSettings
from orchestration.errors import InvalidRequest, UnknownModel
from orchestration.patterns import BUILT_IN, Catalogue
from tests.orchestration.patterns.scripted import Scripted, make_run, perform

EXAMPLE = Path(__file__).with_name("example_pattern.py")
HEAD = "from orchestration.patterns import PatternSettings, pattern\n\n"
BODY = "async def mine(run, context, settings):\n    '''Does it.'''\n    yield\n"
CASES = {
    "syntax": ("def (\n", "syntax", "SyntaxError: invalid syntax (syntax.py, line 1)"),
    "import": ("\nimport no_such_thing\n", "import", "No module named 'no_such_thing' ({file}, line 2)"),
    "crash": (f"{HEAD}@pattern('quick')\n{BODY}\n1 / 0\n", "quick", "division by zero ({file}, line 8)"),
    "leaves": ("raise SystemExit(3)\n", "leaves", "SystemExit: 3 ({file}, line 1)"),
    "empty": ("print\n", "empty", "the file has no pattern: use @pattern"),
    "name": (
        f"{HEAD}@pattern('Big Band')\n{BODY}",
        "Big Band",
        "invalid pattern name 'Big Band': use lower-case letters, digits and - ({file}, line ",
    ),
    "function": (
        f"{HEAD}@pattern('solo')\nasync def f(run, context, s):\n    pass\n",
        "solo",
        "must be an async function",
    ),
    "needy": (
        f"{HEAD}class S(PatternSettings):\n    voices: int\n\n\n@pattern('needy', settings=S)\n{BODY}",
        "needy",
        "settings of pattern 'needy' without a default: voices ({file}, line ",
    ),
    "schema": (
        f"{HEAD}class S(PatternSettings):\n    f: type = int\n\n\n@pattern('odd', settings=S)\n{BODY}",
        "odd",
        "PydanticInvalidForJsonSchema: ",
    ),
    "shadow": (f"{HEAD}@pattern('debate')\n{BODY}", "", "'debate' is taken by a pattern of Orchestra's own"),
}


def load(*paths: Path) -> Catalogue:
    return load_catalogue(PatternsSettings(paths=paths))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    return made


def test_a_file_brings_its_own_patterns_and_not_those_it_builds_on(folder: Path) -> None:
    file = folder / "mine.py"
    file.write_text(f"{HEAD}from orchestration.patterns.single import single\n\n@pattern('solo')\n{BODY}")
    catalogue = load(file)
    assert set(catalogue) - set(BUILT_IN) == {"solo"}
    assert catalogue.origin("solo") == str(file)
    assert not catalogue.broken


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_is_warned_of_once_and_leaves_the_others(
    folder: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    text, name, reason = CASES[case]
    file = folder / f"{case}.py"
    file.write_text(text)
    copy(EXAMPLE, folder / "zz.py")
    with caplog.at_level(logging.WARNING):
        catalogue = load(folder)
    assert set(catalogue) == {*BUILT_IN, "drafts"}
    (broken,) = catalogue.broken
    assert broken.origin == str(file)
    assert reason.format(file=file).replace("(syntax.py", f"({file.name}") in broken.reason
    (record,) = caplog.records
    assert str(file) in record.getMessage()
    assert broken.reason in record.getMessage()
    if name:
        with pytest.raises(UnknownModel) as caught:
            catalogue.find(name)
        assert broken.reason in caught.value.message


def test_of_two_patterns_with_one_name_the_first_counts(folder: Path) -> None:
    for name in ("one.py", "two.py"):
        copy(EXAMPLE, folder / name)
    catalogue = load(folder)
    assert catalogue.origin("drafts") == str(folder / "one.py")
    (broken,) = catalogue.broken
    assert broken.reason == f"the name 'drafts' is taken by the one of {folder / 'one.py'}"


@pytest.mark.parametrize("name", ["nothing.py", "empty", "text.txt"])
def test_a_path_with_nothing_to_load_is_named(folder: Path, name: str) -> None:
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("a = 1\n")
    catalogue = load(folder / name)
    assert set(catalogue) == set(BUILT_IN)
    assert [broken.origin for broken in catalogue.broken] == [str(folder / name)]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return site


def install(site: Path, entry: str) -> None:
    info = site / "orchestra_drafts-1.2.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: orchestra-drafts\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[orchestra.patterns]\n{entry}\n")


async def test_an_installed_package_brings_its_pattern(package: Path) -> None:
    copy(EXAMPLE, package / "drafts_of_package.py")
    install(package, "drafts = drafts_of_package:drafts")
    catalogue = load()
    assert catalogue.origin("drafts") == "package orchestra-drafts 1.2"
    run = make_run(settings={"drafts": 2})
    text, _, context = await perform(
        catalogue.find("drafts"), run, Scripted({"creative": "hum", "answer": "la"})
    )
    assert (text, context.report.sections) == ("la", {"drafts": ["hum", "hum"]})
    with pytest.raises(InvalidRequest, match=r"orchestra\.settings\.drafts: .* less than or equal to 8"):
        catalogue.find("drafts").set({"drafts": 9})


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("drafts = not_there_at_all:drafts", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("drafts = drafts_of_other:nothing", "has no attribute 'nothing'"),
        ("drafts = drafts_of_other:DraftsSettings", "drafts_of_other:DraftsSettings is a "),
        ("sketches = drafts_of_other:drafts", "the entry point is named 'sketches', its pattern 'drafts'"),
    ],
)
def test_a_package_that_brings_no_pattern_is_named(package: Path, entry: str, reason: str) -> None:
    copy(EXAMPLE, package / "drafts_of_other.py")
    install(package, entry)
    catalogue = load()
    assert set(catalogue) == set(BUILT_IN)
    (broken,) = catalogue.broken
    assert broken.origin == "package orchestra-drafts 1.2"
    assert reason in broken.reason
    with pytest.raises(UnknownModel, match="cannot be used"):
        catalogue.find(entry.split(" ")[0])
