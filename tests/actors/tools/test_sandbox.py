"""Programs that try to get out of the sandbox, on the kernel that runs here."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from actors.launch.build_tools import build_tools
from actors.settings import Settings
from actors.tools.python import PythonTool, passed
from actors.tools.sandbox import lockdown as walls
from actors.tools.sandbox.sandbox import CallResult, ProgramResult, Sandbox
from actors.tools.sandbox.settings import SandboxSettings
from orchestration.messages import ToolResult
from orchestration.patterns import ToolUse
from orchestration.patterns.specialists import code
from tests.fixtures.eventually import eventually
from tests.orchestration.patterns.scripted import Scripted, make_run, perform

GENEROUS = SandboxSettings(enabled=True, wall_s=20, cpu_s=10, memory_mb=128, files_mb=1, output_bytes=2_000)


async def ran(program: str, *calls: str, **limits: float) -> ProgramResult:
    return await Sandbox(GENEROUS.model_copy(update=limits)).run(program, calls)


async def test_each_example_has_its_value_or_its_error_and_whether_it_passed() -> None:
    hand = PythonTool(GENEROUS)
    examples = [
        {"call": "half(4)", "expected": "2.0"},
        {"call": "half(0.6)", "expected": "0.3"},
        {"call": "half(3)", "expected": "2"},
        {"call": "half(None)", "expected": "None"},
    ]
    result = await hand.use({"code": "def half(x):\n    return x / 2\nprint('ready')", "examples": examples})
    assert result.error == ""
    outcomes = result.data["outcomes"]
    assert [each["passed"] for each in outcomes] == [True, True, False, False]
    assert [each["value"] for each in outcomes] == ["2.0", "0.3", "1.5", None]
    assert outcomes[3]["error"].startswith("TypeError: ")
    assert result.data["output"] == "ready\n"


async def test_a_program_that_does_not_parse_or_breaks_fails_every_example_and_says_why() -> None:
    for program, error in (("def f(:", "SyntaxError"), ("import sys\nsys.exit('no')", "SystemExit: no")):
        result = await ran(program, "f(1)", "f(2)")
        assert result.error.startswith(error)
        assert [each.error for each in result.outcomes] == [result.error] * 2


async def test_examples_before_the_one_that_ends_the_process_keep_their_values() -> None:
    program = "import os\ndef f(n):\n    return n if n < 2 else os._exit(7)"
    result = await ran(program, "f(1)", "f(2)", "f(3)")
    assert [each.value for each in result.outcomes] == ["1", None, None]
    assert result.outcomes[1].error == result.error == "ended itself with code 7"


NETWORK = """
import socket
def reach(port):
    return socket.create_connection(("127.0.0.1", port), 5).recv(1)
def send(port):
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))
def local():
    return socket.socket(socket.AF_UNIX).connect("/run/dbus/system_bus_socket")
"""


async def test_the_network_is_out_of_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = await ran(NETWORK, f"reach({port})", f"send({port})", "local()")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert [each.error.split(":")[0] for each in result.outcomes] == ["PermissionError"] * 3


PROCESSES = """
import os, signal, subprocess, threading
def bomb():
    while True:
        os.fork()
def daemon():
    os.setsid()
def command():
    return subprocess.run(["/bin/true"])
def thread():
    threading.Thread(target=print).start()
def kill():
    os.kill(os.getppid(), signal.SIGTERM)
def replace():
    os.execv("/bin/sh", ["sh"])
"""


async def test_no_process_is_started_left_behind_or_signalled() -> None:
    calls = ("bomb()", "daemon()", "command()", "thread()", "kill()", "replace()")
    result = await ran(PROCESSES, *calls)
    assert all(each.value is None for each in result.outcomes)
    kinds = {each.error.split(":")[0] for each in result.outcomes}
    assert kinds <= {"PermissionError", "RuntimeError"}, result.outcomes


FILES = """
import os
from pathlib import Path
def write(path):
    Path(path).write_text("x")
def read(path):
    return Path(path).read_bytes()[:1]
def mode(path):
    os.chmod(path, 0o777)
def remove(path):
    os.remove(path)
def own():
    Path("a.txt").write_text("x")
    return Path("a.txt").read_text()
"""


async def test_files_outside_are_neither_read_nor_changed_and_nothing_stays(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    before = secret.stat()
    path = repr(str(secret))
    calls = (
        f"read({path})",
        f"write({path})",
        f"mode({path})",
        f"remove({path})",
        "write('/tmp/made-inside')",
    )
    result = await ran(FILES, *calls, "own()", "os.getcwd()")
    assert [each.error.split(":")[0] for each in result.outcomes[:5]] == ["PermissionError"] * 5
    assert secret.read_text() == "secret"
    assert secret.stat().st_mode == before.st_mode
    assert not os.path.exists("/tmp/made-inside")  # noqa: ASYNC240 - a look
    assert (result.outcomes[5].value == "'x'") is result.own_folder
    assert not os.path.exists(str(result.outcomes[6].value).strip("'"))  # noqa: ASYNC240 - a look


async def test_secrets_of_the_environment_and_our_packages_are_out_of_sight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORCHESTRA_SECRET", "hunter2")
    program = "import os\ndef env(path):\n    return open(path).read()\ndef ours():\n    import actors"
    parent = os.getpid()
    result = await ran(
        program,
        "'ORCHESTRA_SECRET' in os.environ",
        f"env('/proc/{parent}/environ')",
        "env('/proc/self/environ')",
        "ours()",
    )
    assert result.outcomes[0].value == "False"
    assert [each.error.split(":")[0] for each in result.outcomes[1:3]] == ["PermissionError"] * 2
    assert result.outcomes[3].error.split(":")[0] in ("ModuleNotFoundError", "ImportError", "PermissionError")


async def test_memory_files_and_output_have_their_limits() -> None:
    memory, files, output = await asyncio.gather(
        ran("x = bytearray(1 << 30)"),
        ran("for n in range(9):\n    open(str(n), 'wb').write(bytes(1 << 18))"),
        ran("while True:\n    print('x' * 100)"),
    )
    assert memory.error == "MemoryError"
    assert files.error.split(":")[0] in ("OSError", "PermissionError")
    assert output.error == "printed more than output_bytes 2000"
    assert len(output.output) == 2_000


async def test_what_sleeps_or_computes_too_long_is_ended_and_is_gone() -> None:
    sleeper, busy = await asyncio.gather(
        ran("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)", "1", wall_s=5),
        ran("while True:\n    pass", cpu_s=1),
    )
    assert sleeper.error == sleeper.outcomes[0].error == "took longer than wall_s 5"
    with pytest.raises(ProcessLookupError):
        os.kill(int(sleeper.output), 0)
    assert busy.error == "took more than cpu_s 1 of CPU"


async def test_a_use_that_is_cancelled_ends_the_program() -> None:
    task = asyncio.create_task(ran("import time\ntime.sleep(600)"))

    def there() -> bool:
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            with suppress(OSError):  # it may end meanwhile
                if b"actors.tools.sandbox" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return True
        return False

    async def started() -> bool:
        return there()

    await eventually(started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not there()


async def test_a_machine_without_landlock_runs_nothing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        def syscall(self, *arguments: object) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

    monkeypatch.setattr(walls, "libc", Without())
    with pytest.raises(walls.NoWalls, match="no Landlock"):
        walls.put_up("/tmp", cpu_s=1, memory_mb=64, files_mb=1)


async def test_bad_arguments_are_the_results_error() -> None:
    hand = PythonTool(GENEROUS)
    assert (await hand.use({"code": ""})).error.startswith("code: ")
    assert (await hand.use({"code": "x" * 30_000})).error.startswith("code: ")
    assert (await hand.use({"code": "1", "examples": [{"call": "f()"}] * 17})).error.startswith("examples: ")


async def test_the_code_agent_has_the_tool_only_where_it_was_switched_on(tmp_path: Path) -> None:
    for enabled in (False, True):
        settings = Settings.model_validate(
            {"data": tmp_path, "agents": {"embedder": "", "sandbox": {"enabled": enabled}}}
        )
        registry = build_tools(settings, None)
        assert [tool.name for tool in await registry.tools("code")] == (["python"] if enabled else [])


def test_a_value_passes_when_it_is_the_same_or_an_equal_literal() -> None:
    for value, expected, same in (
        ("[1, 2]", "[1,2]", True),
        ("{1: 2, 3: 4}", "{3: 4, 1: 2}", True),
        ("0.30000000000000004", "0.3", True),
        ("True", "1", False),
        ("'1'", "1", False),
        ("<object>", "1", False),
    ):
        assert passed(CallResult(value=value), expected) is same, value


class Trying(Scripted):
    """The agent's words are scripted, its sandbox is real."""

    async def use(self, use: ToolUse) -> ToolResult:
        return await PythonTool(GENEROUS).use(dict(use.arguments))


async def test_a_wrong_program_goes_back_with_what_it_really_gave() -> None:
    wrong = "```python\ndef double(x):\n    return x ** 2 if x else 1 / x\n```"
    right = "```python\ndef double(x):\n    return 2 * x\n```"
    ask = Trying({"answer": wrong, "answer: repair": right}, tool_results={"code": {"python": ToolResult()}})
    question = "Write double.\n>>> double(3)\n6\n>>> double(0)\n0"
    text, _, context = await perform(code, make_run(question), ask)
    assert text == right
    told = ask.question("answer: repair").messages[-1].content
    assert "double(3) should give 6, and gives 9" in told
    assert "double(0) should give 0, and fails: ZeroDivisionError" in told
    assert context.report["code"][0]["passed"] == 2
