"""`orchestra node --backend triton` as people run it: a process with a tritonserver of its own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from actors.bus.bus import Bus, BusSettings
from actors.cli.main import root
from actors.cluster.registry import Registry
from actors.triton.config import check_repository
from orchestration.messages import NodeInfo
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder, models_folder
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import orchestra
from tests.fixtures.triton import CONFIG, write_model

MODEL = "all-minilm-l6-v2"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    minilm_folder()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models").symlink_to(models_folder())
    return tmp_path / "data"


def tritonserver_of(pid: int) -> psutil.Process | None:
    found = [each for each in psutil.Process(pid).children(recursive=True) if each.name() == "tritonserver"]
    return found[0] if found else None


def nodes(url: str) -> list[NodeInfo]:
    """The nodes that are registered. Call it outside an event loop."""

    async def read() -> list[NodeInfo]:
        bus = await Bus.connect(BusSettings(url=url), name="tests")
        registry = Registry(bus)
        await registry.start()
        try:
            return list(registry.nodes.values())
        finally:
            await registry.stop()
            await bus.close()

    return asyncio.run(read())


def serves(client: InferenceServerClient, model: str) -> bool:
    try:
        return bool(client.is_model_ready(model))
    except InferenceServerException:
        return False


async def test_a_node_has_a_server_of_its_own_that_comes_back_with_its_models_and_leaves_with_the_node(
    own_nats: RunningNats, data: Path
) -> None:
    words = ("node", "--backend", "triton", "--id", "gpu-1", "--serve", MODEL, "--data", str(data))
    with orchestra(*words, "--nats", own_nats.url) as process:
        await asyncio.to_thread(process.wait_for, f"node gpu-1 serves {MODEL}", within_s=120)
        (node,) = await asyncio.to_thread(nodes, own_nats.url)
        assert node.backend == "triton"
        version, address = node.hardware.provider.split()[1:]
        assert version.startswith("2.")
        assert check_repository(data / "triton" / "repository")[0] == MODEL
        first = tritonserver_of(process.pid)
        assert first is not None
        with InferenceServerClient(address) as client:
            assert serves(client, MODEL)
            first.kill()
            await eventually(lambda: not first.is_running() and serves(client, MODEL), within_s=120)
        second = tritonserver_of(process.pid)
        assert second is not None
        process.send(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, within_s=60) == 0, process.said
        assert not second.is_running()


BROKEN = """
class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("the weights are on strike")

    def execute(self, requests):
        return []
"""


def test_a_model_that_fails_to_load_is_told_in_its_own_words_with_the_place_of_the_log(
    nats_server: RunningNats, data: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "repository", "striking", BROKEN)
    words = ("node", "--backend", "triton", "--serve", "striking", "--data", str(data))
    repository = str(tmp_path / "repository")
    with orchestra(
        *words, "--nats", nats_server.url, ORCHESTRA_TRITON_SERVER__REPOSITORY=repository
    ) as process:
        assert process.wait(within_s=120) == 5
    assert "the weights are on strike" in process.said
    assert f"Triton's log is {data}/triton/server.log" in process.said
    assert "Traceback" not in process.said
    assert "on strike" in (data / "triton" / "server.log").read_text()


def said_of(*words: str, **environment: str) -> tuple[int, str]:
    result = CliRunner(env=environment).invoke(root, ["node", *words])
    return result.exit_code, result.stderr


def test_a_configuration_with_a_wrong_type_is_told_before_anything_starts(data: Path, tmp_path: Path) -> None:
    wrong = CONFIG.replace("max_batch_size: 0", 'max_batch_size: "none"')
    write_model(tmp_path / "repository", "wrong", config=wrong)
    code, said = said_of(
        "--backend",
        "triton",
        "--data",
        str(data),
        ORCHESTRA_TRITON_SERVER__REPOSITORY=str(tmp_path / "repository"),
    )
    assert code == 2
    assert "repository/wrong/config.pbtxt is not a valid configuration of a Triton model, line 3:17" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("triton", "--speed", "1"), "--speed does not go with --backend triton"),
        (("echo", "--triton-url", "grpc://h:1"), "--triton-url does not go with --backend echo"),
        (("triton", "--serve", "nobody"), "no model 'nobody'"),
    ],
)
def test_options_and_models_that_do_not_go_with_it_are_refused(
    data: Path, words: tuple[str, ...], said: str
) -> None:
    code, error = said_of("--backend", *words, "--data", str(data))
    assert code == 2
    assert said in error


def test_a_url_that_is_none_of_grpc_is_refused(nats_server: RunningNats, data: Path) -> None:
    url = ("--triton-url", "http://127.0.0.1:8000", "--nats", nats_server.url)
    code, error = said_of("--backend", "triton", *url, "--data", str(data))
    assert code == 2
    assert "setting triton.url: " in error
    assert "grpc://HOST:PORT" in error


def test_without_the_extra_the_node_says_which_is_missing(data: Path) -> None:
    code = (
        "import sys; sys.modules['tritonclient'] = None\nfrom actors.cli.main import root; root(sys.argv[1:])"
    )
    words = [sys.executable, "-c", code, "node", "--backend", "triton", "--data", str(data)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[3])
    assert done.returncode == 5
    assert "pip install 'orchestra-llm[triton]'" in done.stderr
    assert "Traceback" not in done.stderr
