"""`auto` on the real SmolLM2 over two nodes: alone for a plain question, as the team that has the record."""

from __future__ import annotations

from actors.agents.settings import AgentsSettings
from actors.engine.onnx_backend import OnnxBackend
from actors.learning.feedback import Feedback, FeedbackCounter
from actors.learning.settings import LearningSettings
from orchestration.messages import Sampling
from orchestration.patterns import StepLimits
from orchestration.trust.observation import Observation
from tests.actors.agents.clusters import cluster
from tests.actors.agents.test_runs import make_run, perform
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder, smollm2_folder
from tests.fixtures.nats import RunningNats

SETTINGS = AgentsSettings(
    limits=StepLimits(final_tokens=40),
    auto=LearningSettings(explore=0, flush_s=0.05),
    patterns={"ensemble": {"samples": 4, "early": False}},
    drain_timeout_s=5,
)
HARD = "Compare cats and dogs as pets for a small flat: cost and noise. Weigh both and recommend one."


async def test_a_plain_question_goes_to_one_model_and_a_hard_one_to_the_team_with_the_best_record(
    nats: RunningNats,
) -> None:
    nodes = [OnnxBackend([smollm2_folder()]) for _ in range(2)]
    async with cluster(nats.url, nodes[0], SETTINGS, others=nodes[1:], embedder=minilm_folder()) as running:
        plain = make_run(
            running.streams, "auto", "What is the capital of France?", sampling=Sampling(temperature=0)
        )
        text, ended, progress = await perform(running.streams, plain, 60)
        assert "Paris" in text
        said = ended.report["auto"]
        assert (said["kind"], said["pattern"], said["difficulty"]) == ("factual", "single", "easy")
        assert progress[0].text.startswith("auto chose single")
        counted = await FeedbackCounter(running.bus).submit(Feedback(run=plain.id, score=1))
        assert (counted.kind, counted.pattern) == ("factual", "single")

        store = running.team.services.tuner.store
        observations = [
            Observation(source="user", quality=1, arm="strict/ensemble", caller=f"user {number}")
            for number in range(60)
        ]
        await store.add("reasoning", observations)
        await eventually(lambda: store.record("reasoning").arm("strict/ensemble").right > 100)
        hard = make_run(running.streams, "auto", HARD)
        text, ended, _ = await perform(running.streams, hard, 100)
        assert text.strip()
        said = ended.report["auto"]
        assert (said["kind"], said["pattern"]) == ("reasoning", "ensemble")
        assert "judgements" in said["reason"]
        assert len(ended.report["ensemble"]["voices"]) > 1
        assert {step.node for step in ended.steps} <= {node.id for node in running.nodes}
        await eventually(lambda: "strict/ensemble" in store.record("reasoning").costs)
