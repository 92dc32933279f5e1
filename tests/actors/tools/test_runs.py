"""A run whose agent uses an MCP server's tool, on the real model over NATS."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from actors.agents.settings import AgentsSettings
from actors.engine.onnx_backend import OnnxBackend
from actors.launch.build_tools import build_tools
from actors.settings import Settings
from actors.tools.settings import McpServerSettings
from orchestration.messages import ChatMessage, Run, Sampling
from orchestration.patterns import StepLimits
from tests.actors.agents.clusters import answered, cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.models import smollm2_folder
from tests.fixtures.nats import RunningNats

SERVER = Path(__file__).with_name("mcp_tools.py")


async def test_an_agent_on_the_real_model_chooses_a_tool_with_arguments_that_fit_its_schema(
    own_nats: RunningNats, tmp_path: Path
) -> None:
    shop = McpServerSettings(command=sys.executable, args=(str(SERVER),), tools=("stock",))
    agents = AgentsSettings(
        mcp={"shop": shop}, limits=StepLimits(final_tokens=24, tool_calls=1), drain_timeout_s=5
    )
    tools = partial(build_tools, Settings(data=tmp_path, agents=agents))
    async with cluster(own_nats.url, OnnxBackend([smollm2_folder()]), agents, build_tools=tools) as running:
        await eventually(lambda: running.team.tools.tools("research"), within_s=60)
        run = Run(
            id=running.streams.new_id(),
            pattern="research",
            messages=(ChatMessage(role="user", content="How many bolts are in the warehouse?"),),
            sampling=Sampling(temperature=0),
        )
        _, ended = await answered(running.streams, run, 60)
    steps = {step.name: step for step in ended.steps}
    assert json.loads(steps["answer: choice 1"].text) == {"tool": "shop.stock"}
    item = json.loads(steps["answer: arguments 1"].text)["item"]
    used = steps["answer: shop.stock 1"]
    assert (used.agent, used.tool) == ("research", "shop.stock")
    assert used.text.startswith(f"There are 17 of {item} in aisle 4.")
    assert ended.report["sources"][0]["document"] == "shop.stock"
