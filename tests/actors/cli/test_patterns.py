"""A pattern of one's own, as a user adds it and asks for it."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.bus.bus import Bus, BusSettings
from actors.cli.main import root
from actors.runtime.service import ERROR_CODE
from orchestration.patterns import BUILT_IN
from tests.actors.cli.test_up import urls
from tests.fixtures.process import Process, orchestra

EXAMPLE = Path(__file__).parents[1] / "patterns/example_pattern.py"
FAILING = """
import asyncio
import sys
from pathlib import Path
from pydantic import field_validator
from orchestration.patterns import PatternSettings, TextDelta, pattern
from orchestration.patterns.single import single

class Settings(PatternSettings):
    how: str = "key"

    @field_validator("how")
    @classmethod
    def check(cls, how):
        return {"setting": {}[0]} if how == "setting" else how

def deep():
    return deep()

async def leaves():
    sys.exit(9)

class Panic(BaseException):
    pass

ODD = {"number": 5, "text": TextDelta(text=7), "torn": TextDelta(text="half \\ud83d")}

@pattern("failing", settings=Settings)
async def failing(run, stage, settings):
    how = settings.how
    if how.startswith("/"):
        yield TextDelta(text="begun", tokens=1)
        while not Path(how).exists():
            await asyncio.sleep(0.02)
        yield TextDelta(text=" and ended", tokens=2)
        async for item in single.inside(run, stage):
            pass
        yield item
        return
    if how in ODD:
        yield ODD[how]
    if how == "stray":
        asyncio.get_running_loop().call_soon(sys.exit, 7)
        await asyncio.sleep(0.05)
        raise KeyError("after the exit")
    if how == "team":
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(leaves())
    if how == "late":
        yield TextDelta(text="begun", tokens=1)
    if how == "deep":
        deep()
    if how == "report":
        stage.report["thing"] = object()
        async for item in single.inside(run, stage):
            yield item
        return
    if how == "task":
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(int, "x"))
    raise {
        "group": BaseExceptionGroup("all", [SystemExit(1)]),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "panic": Panic("rust"),
        "cancelled": asyncio.CancelledError(),
        "half": ValueError("half \\ud83d"),
        "args": ValueError(b"bytes", {1: 2}),
    }.get(how, KeyError(("no", "text")))
"""
FAILURES = {
    "key": "KeyError: ('no', 'text')",
    "late": "KeyError: ('no', 'text')",
    "deep": "RecursionError: ",
    "setting": "KeyError: 0",
    "task": "ValueError: invalid literal",
    "group": "SystemExit: 1",
    "exit": "SystemExit: 3",
    "cancelled": "CancelledError",
    "half": "ValueError: half ?",
    "args": "ValueError: (b'bytes', {1: 2})",
    "interrupt": "KeyboardInterrupt",
    "panic": "Panic: rust",
    "number": "TypeError: it yielded int",
    "text": "TypeError: it yielded a TextDelta whose text is int",
    "torn": "KeyError: ('no', 'text')",
    "stray": "KeyError: 'after the exit'",
    "team": "SystemExit: 9",
    "report": "PydanticSerializationError: ",
}
HEAD = "from orchestration.patterns import pattern\n\n\n@pattern('solo')\n"


@dataclass(frozen=True, slots=True)
class Served:
    """A real `orchestra up` with an echo node, and a settings file that names a folder of patterns."""

    http: str
    nats: str
    config: Path
    site: Path
    said: str
    process: Process

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.http + path, timeout=30) as answer:
            return json.load(answer)

    def chat(self, pattern: str, **orchestra: Any) -> tuple[int, Any]:
        body = {
            "model": f"orchestra/{pattern}",
            "messages": [{"role": "user", "content": "Rain"}],
            "orchestra": orchestra,
        }
        request = urllib.request.Request(f"{self.http}/v1/chat/completions", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)["error"]

    def ask(self, *words: str) -> Result:
        return run("ask", "Rain", "--nats", self.nats, *words)


def run(*words: str) -> Result:
    """A command, in this process."""
    return CliRunner().invoke(root, words)


def install(site: Path) -> None:
    """A package as pip leaves it, with a pattern `sketches`."""
    (site / "orchestra_sketches.py").write_text(
        EXAMPLE.read_text().replace('@pattern("drafts"', '@pattern("sketches"')
    )
    info = site / "orchestra_sketches-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: orchestra-sketches\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[orchestra.patterns]\nsketches = orchestra_sketches:drafts\n")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("user")
    mine = folder / "mine"
    mine.mkdir()
    copy(EXAMPLE, mine / "drafts.py")
    (mine / "failing.py").write_text(FAILING)
    (mine / "broken.py").write_text("import no_such_thing\n")
    config = folder / "orchestra.toml"
    config.write_text(f'data = "{folder / "data"}"\n[patterns]\npaths = ["{mine}"]\n')
    up = ("up", "--config", str(config), "--http", "127.0.0.1:0", "--no-model")
    site = folder / "site"
    site.mkdir()
    install(site)
    with orchestra(*up, PYTHONPATH=str(site)) as process:
        http, nats = urls(process.wait_for("Orchestra is ready"))
        with orchestra("node", "--backend", "echo", "--nats", nats, "--id", "echo-1") as node:
            node.wait_for("serves echo")
            there = Served(http, nats, config, site, process.said, process)
            until = time.monotonic() + 30
            while not any(model["id"] == "echo" for model in there.get("/v1/models")["data"]):
                assert time.monotonic() < until
            yield there


def test_a_pattern_from_a_path_answers_with_its_settings(served: Served) -> None:
    status, answer = served.chat("drafts", settings={"drafts": 2}, model="echo")
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "Make one answer of these drafts:\n\nRain\n\nRain"
    assert [step["name"] for step in answer["orchestra"]["steps"]][-1] == "answer"
    assert answer["orchestra"]["report"] == {"drafts": ["Rain", "Rain"]}
    with urllib.request.urlopen(f"{served.http}/metrics", timeout=30) as metrics:
        assert b'orchestra_runs_total{outcome="ok",pattern="drafts"} ' in metrics.read()


def test_a_pattern_of_an_installed_package_needs_no_settings(served: Served) -> None:
    status, answer = served.chat("sketches", settings={"drafts": 2}, model="echo")
    assert (status, len(answer["orchestra"]["steps"])) == (200, 3)
    told = {each["id"]: each["origin"] for each in served.get("/v1/patterns")["data"]}
    assert told["sketches"] == "package orchestra-sketches 1.2"


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"drafts": 9}, "drafts"), ({"drafts": "many"}, "drafts"), ({"colour": 1}, "colour")],
)
def test_a_wrong_setting_is_refused_naming_the_field(
    served: Served, settings: dict[str, Any], field: str
) -> None:
    status, error = served.chat("drafts", settings=settings)
    assert (status, error["param"]) == (400, f"orchestra.settings.{field}")
    assert "settings of drafts: agent, drafts" in error["message"]


def test_a_plug_in_that_does_not_import_is_warned_of_and_tells_who_asks_why(served: Served) -> None:
    why = "ModuleNotFoundError: No module named 'no_such_thing'"
    assert served.said.count(why) == 1
    status, error = served.chat("broken")
    assert (status, error["param"]) == (404, "model")
    assert why in error["message"]
    assert "broken.py, line 1" in error["message"]


def failing(how: str, *, stream: bool = False) -> bytes:
    body = {
        "model": "orchestra/failing",
        "messages": [{"role": "user", "content": "Rain"}],
        "orchestra": {"settings": {"how": how}},
        "stream": stream,
    }
    return json.dumps(body).encode()


def ask_http(served: Served, how: str) -> tuple[int, str, str]:
    """The status, the error's text and the run's id."""
    request = urllib.request.Request(f"{served.http}/v1/chat/completions", failing(how))
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as error:
        return error.code, json.load(error)["error"]["message"], error.headers["X-Orchestra-Run"]


async def ask_nats(served: Served) -> dict[str, tuple[str, str]]:
    """For each failure the status, and the error's text."""
    bus = await Bus.connect(BusSettings(url=served.nats), name="caller")
    said = {}
    for how in FAILURES:
        reply = await bus.request("orchestra.chat", failing(how), timeout=30)
        said[how] = (reply.header(ERROR_CODE), json.loads(reply.data)["error"]["message"])
    await bus.close()
    return said


def test_a_pattern_that_fails_is_the_error_of_its_run_alone(served: Served, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    innocent = urllib.request.Request(
        f"{served.http}/v1/chat/completions", failing(str(gate), stream=True), {"X-Request-Timeout": "120"}
    )
    with urllib.request.urlopen(innocent, timeout=120) as answer:
        while b"begun" not in answer.readline():
            pass
        for how, text in FAILURES.items():
            status, message, run = ask_http(served, how)
            assert (status, text in message, run in message) == (500, True, True), (how, message)
            if how != "setting":
                served.process.wait_for(f"of run {run} failed")
        for how, (code, message) in asyncio.run(ask_nats(served)).items():
            assert (code, FAILURES[how] in message) == ("500", True), (how, message)
        gate.touch()
        rest = answer.read()
    assert b" and ended" in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    late = urllib.request.Request(f"{served.http}/v1/chat/completions", failing("late", stream=True))
    with urllib.request.urlopen(late, timeout=30) as answer:
        told = answer.read()
    assert told.index(b"begun") < told.index(b"KeyError: ('no', 'text')")
    with urllib.request.urlopen(f"{served.http}/metrics", timeout=30) as metrics:
        counted = re.findall(rb'orchestra_internal_errors_total{where="pattern"} (\S+)', metrics.read())
    assert float(counted[0]) >= 2 * (len(FAILURES) - 2)
    assert served.process.said.count(f"of run {run} failed") == 1
    status, _ = served.chat("drafts", settings={"drafts": 2}, model="echo")
    assert status == 200


def test_patterns_and_their_settings_are_told_over_http(served: Served) -> None:
    told = served.get("/v1/patterns")
    assert [each["id"] for each in told["data"]] == sorted([*BUILT_IN, "drafts", "failing", "sketches"])
    (mine,) = (each for each in told["data"] if each["id"] == "drafts")
    assert mine["description"] == "Writes several drafts at once, and makes one answer of them"
    assert mine["origin"].endswith("mine/drafts.py")
    assert mine["settings"]["properties"]["drafts"] == {
        "default": 3,
        "maximum": 8,
        "minimum": 2,
        "title": "Drafts",
        "type": "integer",
    }
    (broken,) = told["broken"]
    assert broken["names"] == ["broken"]
    models = [model["id"] for model in served.get("/v1/models")["data"]]
    assert {each["model"] for each in told["data"]} <= set(models)


def test_the_shell_asks_for_any_pattern_with_settings_and_a_budget(served: Served) -> None:
    words = ("--pattern", "drafts", "--set", "drafts=3", "--set", "agent=code", "--budget-calls", "3")
    asked = served.ask(*words, "--model", "echo", "--json")
    assert asked.exit_code == 0, asked.stderr
    report = json.loads(asked.stdout)
    assert {step["agent"] for step in report["steps"]} == {"code", "coordinator"}
    assert len(report["steps"]) == 3
    assert report["report"]["drafts"] == ["Rain", "Rain"]
    assert any(note.startswith("draft 3 is missing") for note in report["notes"])
    unknown = served.ask("--pattern", "quartet")
    assert unknown.exit_code == 2
    assert "orchestra/drafts" in unknown.stderr
    assert "orchestra/debate" in unknown.stderr
    wrong = served.ask("--pattern", "drafts", "--set", "drafts=99")
    assert wrong.exit_code == 2
    assert "orchestra.settings.drafts" in wrong.stderr
    assert served.ask("--set", "drafts").exit_code == 2


def test_a_job_takes_a_pattern_of_ones_own_too(served: Served) -> None:
    words = ("--pattern", "drafts", "--set", "drafts=2", "--model", "echo", "--wait", "--nats", served.nats)
    done = run("jobs", "submit", "Rain", *words)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == "Make one answer of these drafts:\n\nRain\n\nRain"


def test_patterns_are_listed_with_their_settings_and_broken_ones_with_the_reason(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(served.site))
    listed = run("patterns", "list", "--config", str(served.config))
    assert listed.exit_code == 0, listed.stderr
    assert "drafts  Writes several drafts at once, and makes one answer of them  (" in listed.stdout
    assert "    drafts = 3  integer, at least 2, at most 8\n" in listed.stdout
    assert '    visible = "answers"  answers | answers and critique | summary\n' in listed.stdout
    assert "broken  cannot be used: ModuleNotFoundError: No module named 'no_such_thing'" in listed.stdout
    assert "Traceback" not in listed.stderr
    as_json = json.loads(run("patterns", "list", "--json", "--config", str(served.config)).stdout)
    assert as_json == served.get("/v1/patterns")


def test_a_pattern_is_checked_without_a_model(tmp_path: Path) -> None:
    checked = run("patterns", "check", str(EXAMPLE), "--set", "drafts=2")
    assert checked.exit_code == 0, checked.stderr
    lines = [line.strip() for line in checked.stdout.splitlines()]
    assert lines[1:] == [
        "draft 1: creative, 20 characters",
        "draft 2: creative, 20 characters",
        "answer: coordinator, 76 characters",
        "answer: 76 characters; report: drafts",
    ]
    assert run("patterns", "check", str(EXAMPLE), "--set", "drafts=99").exit_code == 2
    missing = run("patterns", "check", str(tmp_path / "nothing.py"))
    assert (missing.exit_code, "the file does not exist" in missing.stderr) == (2, True)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("    if False:\n        yield\n", "it ends without an answer"),
        ("    yield 'words'\n", "it yields str, which is neither TextDelta nor StepResult"),
        ("    yield 1 / 0\n", "it fails with ZeroDivisionError"),
        (
            "    import secrets\n    from orchestration.patterns.single import single\n"
            "    await stage.ask('code', run.messages, name=secrets.token_hex())\n"
            "    async for item in single(run, stage):\n        yield item\n",
            "its steps differ from one performance to the next",
        ),
    ],
    ids=["no answer", "no parts", "fails", "differs"],
)
def test_a_pattern_that_breaks_the_rules_is_told_which(tmp_path: Path, body: str, why: str) -> None:
    file = tmp_path / "solo.py"
    file.write_text(f"{HEAD}async def solo(run, stage, settings):\n{body}")
    checked = run("patterns", "check", str(file))
    assert checked.exit_code == 5
    assert why in checked.stderr
