"""`orchestra ask` on a terminal: the run as it happens, beside the answer."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.runtime.envelope import Envelope
from actors.runtime.service_client import chat
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually

ROWS, COLUMNS = 50, 120
QUESTION = "The number is 7"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    nodes = [(name, EchoBackend(EchoSettings(models=("echo",), repeat=False))) for name in ("one", "two")]
    nodes.append(("paced", EchoBackend(EchoSettings(models=("slow",), speed=2))))
    with running_cluster(nodes, agents=True) as running:
        yield running


def ask(
    cluster: Cluster, *words: str, shared: bool, term: str = "xterm-256color", question: str = QUESTION
) -> tuple[str, str, int]:
    """What the terminal gets, what stdout gets where that is a pipe, and the exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "actors.cli",
            "ask",
            question,
            "--nats",
            cluster.nats.url,
            "--timeout",
            "60",
            "--model",
            "echo",
            *words,
        ],
        stdin=subprocess.DEVNULL,
        stdout=theirs if shared else subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": term},
    )
    os.close(theirs)
    with process, os.fdopen(ours, "rb", buffering=0) as terminal:
        shown = bytearray()
        try:
            while piece := terminal.read(65_536):
                shown += piece
        except OSError:  # Linux's way to say that nobody has the other end any more
            pass
        piped = process.stdout.read().decode() if process.stdout is not None else ""
        return shown.decode(), piped, process.wait(30)


def screen(written: str) -> list[str]:
    """The lines that a terminal shows after all that was written."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif not part.startswith("\x1b"):
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + len(part) :]
            column += len(part)
        elif part.endswith("A"):
            row = max(0, row - int(part[2:-1] or 1))
        elif part.endswith("K"):
            lines[row] = ""
    return [line.rstrip() for line in lines]


def test_a_debate_is_drawn_while_the_answer_goes_to_its_pipe(cluster: Cluster) -> None:
    written, piped, code = ask(cluster, "--pattern", "debate", "--set", "rounds=2", shared=False)
    assert code == 0, written
    assert piped == f"Question: {QUESTION}\n"
    shown = screen(written)
    assert re.fullmatch(r"debate · run \S+ · \d+\.\d s · \d+ tokens read, \d+ written", shown[0]), shown
    assert shown[1] == "└── round 1 · 3 debaters"
    steps = [line for line in shown if "✓ round 1 / debater" in line]
    assert len(steps) == 3
    assert all(re.search(r"echo @ (one|two) · \d+\.\d s · 5 tokens", line) for line in steps)
    assert sum("holds: Question: The number is 7" in line for line in shown) == 3
    assert any("1, 2, 3 · agreement 1.00 · over: agreement" in line for line in shown)


def test_on_one_terminal_the_tree_stands_still_above_the_answer(cluster: Cluster) -> None:
    written, _, code = ask(cluster, "--pattern", "maestro", "--budget-calls", "3", shared=True)
    assert code == 0, written
    shown = screen(written)
    tree = [index for index, line in enumerate(shown) if line.startswith(("maestro · run", "├──", "└──"))]
    assert not any("◌" in line for line in shown), "a step that is at work for ever"
    answer = next(index for index, line in enumerate(shown) if line.startswith(f"Question: {QUESTION}"))
    assert max(tree) < answer
    assert any("✓ plan · coordinator" in line for line in shown)
    assert shown[-3].startswith("· synthesis: coordinator took ")
    assert shown[-2:] == ["note: to stay within 3 calls: without review", ""]
    assert "\x1b[33mnote: " in written


def test_on_a_terminal_markdown_is_formatted_and_wrapped_between_words(cluster: Cluster) -> None:
    words = " ".join(["understanding"] * 20)
    question = f"Some **strong** words:\n\n- first {words}\n- second\n\n```\na = 1\n\nb = 2\n```"
    written, _, code = ask(cluster, "--pattern", "single", "--model", "echo", shared=True, question=question)
    assert code == 0, written
    shown = screen(re.sub(r"\x1b\[[0-9;]*m", "", written))
    assert any("Some strong words:" in line for line in shown), shown
    assert any(line.lstrip().startswith("• first understanding") for line in shown)
    assert all(
        part in {"understanding", "•", "first"}
        for line in shown
        if "underst" in line
        for part in line.split()
    )
    assert not any("```" in line for line in shown)
    assert any("a = 1" in line for line in shown)


def test_a_chat_leaves_its_answers_and_no_trees(cluster: Cluster) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    words = ["chat", "--nats", cluster.nats.url, "--model", "echo", "--pattern", "auto"]
    process = subprocess.Popen(
        [sys.executable, "-m", "actors.cli", *words],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    os.close(theirs)
    assert process.stdin is not None
    process.stdin.write(b"The number is 7\nThe number is 8\n\n")
    process.stdin.close()
    shown = bytearray()
    with process, os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while piece := terminal.read(65_536):
                shown += piece
        except OSError:  # Linux's way to say that nobody has the other end any more
            pass
        assert process.wait(30) == 0, shown.decode()
    lines = [line for line in screen(re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())) if line]
    assert not any(line.startswith(("├──", "└──", "auto ·")) for line in lines), lines
    assert any("The number is 8" in line for line in lines)


def test_a_key_that_stops_an_answer_leaves_the_chat(cluster: Cluster) -> None:
    words = ["chat", "--nats", cluster.nats.url, "--model", "slow", "--plain"]
    with subprocess.Popen(
        [sys.executable, "-m", "actors.cli", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"long " * 500 + b"\n")
        process.stdin.flush()
        shown = b""
        while b"long" not in shown:
            piece = os.read(process.stdout.fileno(), 65_536)
            assert piece, process.stderr.read()
            shown += piece
        process.send_signal(signal.SIGINT)
        process.stdin.write(b"\n")
        process.stdin.close()
        process.stdout.read()
        assert process.wait(30) == 0
        assert b"stopped; the chat goes on" in process.stderr.read()


def test_a_key_that_stops_the_chat_itself_ends_it_at_once(cluster: Cluster) -> None:
    words = ["chat", "--nats", cluster.nats.url, "--model", "echo", "--plain"]
    with subprocess.Popen(
        [sys.executable, "-m", "actors.cli", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"> "
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1


@pytest.mark.parametrize(("words", "term"), [(("--plain",), "xterm"), ((), "dumb")])
def test_who_wants_lines_gets_lines(cluster: Cluster, words: tuple[str, ...], term: str) -> None:
    written, _, code = ask(cluster, "--pattern", "ensemble", *words, shared=True, term=term)
    assert code == 0, written
    assert "· voice 1: coordinator took " in written
    assert "\x1b[1A" not in written
    assert "├──" not in written


def test_a_failure_leaves_the_terminal_as_it_was(cluster: Cluster) -> None:
    written, _, code = ask(cluster, "--pattern", "debate", "--set", "judge=nobody", shared=True)
    assert code == 2
    assert "no agent 'nobody'" in written
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l") > -1, "the cursor is hidden"


def test_a_runs_first_chunk_names_it_so_that_it_can_be_watched_from_its_beginning(cluster: Cluster) -> None:
    async def chunks() -> list[dict[str, Any]]:
        messages = [{"role": "user", "content": QUESTION}]
        body = {"model": "orchestra/maestro", "messages": messages, "orchestra": {"model": "echo"}}
        return [chunk async for chunk in chat(cluster.bus, body, Envelope.within(30))]

    first, *others = cluster.call(chunks())
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["id"] == f"chatcmpl-{first['orchestra']['run']}"
    assert first["orchestra"] == {"run": others[-1]["orchestra"]["run"]}
    assert any("progress" in chunk["orchestra"] for chunk in others if "orchestra" in chunk)


def test_who_leaves_stops_a_run_that_says_nothing_for_long(cluster: Cluster) -> None:
    async def leave() -> None:
        messages = [{"role": "user", "content": QUESTION}]
        body = {"model": "orchestra/ensemble", "messages": messages, "orchestra": {"model": "slow"}}
        async with aclosing(chat(cluster.bus, body, Envelope.within(60))) as chunks:
            await anext(chunks)
            await eventually(lambda: cluster.running_on("paced") == 3)

    cluster.call(leave())
    cluster.wait(lambda: cluster.running_on("paced") == 0)
