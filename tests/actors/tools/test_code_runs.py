"""A run whose code agent has a sandbox, over NATS. The node echoes, so that the program is the question's."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from actors.agents.settings import AgentsSettings
from actors.backends.echo import EchoBackend, EchoSettings
from actors.launch.build_tools import build_tools
from actors.settings import Settings
from actors.tools.sandbox.settings import SandboxSettings
from orchestration.messages import ChatMessage, Run
from tests.actors.agents.clusters import answered, cluster
from tests.fixtures.nats import RunningNats

QUESTION = """Say this program again.
>>> double(4)
8
>>> double(3)
6
```python
def double(x):
    return x + 4
```"""


async def test_a_program_of_a_run_is_tried_with_the_examples_of_its_question(
    own_nats: RunningNats, tmp_path: Path
) -> None:
    sandbox = SandboxSettings(enabled=True, wall_s=20, cpu_s=10)
    agents = AgentsSettings(embedder="", sandbox=sandbox, drain_timeout_s=5)
    tools = partial(build_tools, Settings(data=tmp_path, agents=agents))
    backend = EchoBackend(EchoSettings(repeat=False))
    async with cluster(own_nats.url, backend, agents, build_tools=tools) as running:
        run = Run(
            id=running.streams.new_id(),
            pattern="code",
            messages=(ChatMessage(role="user", content=QUESTION),),
        )
        _, ended = await answered(running.streams, run, 60)
    (report,) = ended.report["code"]
    assert (report["examples"], report["passed"], report["repaired"]) == (2, 1, False)
    assert report["failures"] == ["double(3) should give 6, and gives 7"]
    assert [step.tool for step in ended.steps if step.tool] == ["python"]
