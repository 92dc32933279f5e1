from __future__ import annotations

from typing import Any

import pytest

from actors.bus.declarations import ConsumerDeclaration, Declaration, load
from actors.bus.drift import Drift, Remedy, ServerState, diff, stream_configs
from actors.bus.subjects import GenerationQueue, RunQueue
from actors.dispatcher.settings import DispatcherSettings
from actors.nats_server import NatsServerSettings
from orchestration.messages import Priority

SECOND = 1_000_000_000

MINIMAL = """
streams:
  - name: WORK
    subjects: [work.>]
    retention: workqueue
    storage: file
    discard: new
    max_mib: 1
    duplicate_window_s: 60
    consumers:
      - name: work-{priority}
        filter: work.{priority}
        ack_wait_s: 5
        max_deliver: 2
        max_ack_pending: 9
"""


def as_on_a_server(declaration: Declaration) -> ServerState:
    """The configurations a server would report: as declared, without zeros and empties."""

    def reported(config: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in config.items() if value}

    streams = stream_configs(declaration, replicas=1)
    return ServerState(
        {name: reported(config) for name, config in streams.items()},
        {
            stream.name: {each.name: reported(each.config()) for each in stream.fixed_consumers()}
            for stream in declaration.streams
        },
    )


def test_the_shipped_declaration_has_the_queues_and_consumers_that_the_subjects_name() -> None:
    declaration = load()
    runs = declaration.stream(RunQueue.STREAM)
    assert {each.name for each in runs.fixed_consumers()} == {RunQueue.consumer(p) for p in Priority}
    queue = GenerationQueue(Priority.BATCH, "org/model.v1_x")
    consumer = declaration.stream(GenerationQueue.STREAM).consumer(queue.consumer)
    assert consumer is not None
    assert consumer.filter == queue.subject
    assert not list(declaration.stream(GenerationQueue.STREAM).fixed_consumers())


def test_the_shipped_declaration_fits_the_store_that_a_server_gets_by_default() -> None:
    default = NatsServerSettings.model_fields["max_store_bytes"].default
    assert 0 < load().reserved_bytes <= default


def test_every_shipped_queue_is_bounded_and_refuses_rather_than_drops_work() -> None:
    for stream in load().streams:
        assert stream.max_age_s, stream.name
        if stream.retention == "workqueue":
            assert stream.discard_new_per_subject, stream.name
            assert stream.discard == "new", stream.name


def test_seconds_and_mebibytes_become_nanoseconds_and_bytes() -> None:
    stream = Declaration.parse(MINIMAL).stream("WORK")
    config = stream.config(replicas=3)
    assert (config["max_bytes"], config["num_replicas"]) == (2**20, 3)
    assert config["duplicate_window"] == 60 * SECOND
    assert next(stream.fixed_consumers()).config()["ack_wait"] == 5 * SECOND


def test_a_short_lived_bucket_has_no_longer_duplicate_window_than_its_entries_live() -> None:
    (nodes,) = (bucket for bucket in load().buckets if bucket.name == "nodes")
    config = nodes.config(replicas=1)
    assert config["max_age"] == config["duplicate_window"] == 8 * SECOND


def test_a_template_is_filled_from_a_consumers_name_and_from_no_other() -> None:
    template = ConsumerDeclaration(
        name="g-{priority}-{model}",
        filter="g.{priority}.{model}",
        ack_wait_s=1,
        max_deliver=1,
        max_ack_pending=1,
    ).filled(priority="batch")
    made = template.instantiate("g-batch-smollm2-135m")
    assert made is not None
    assert (made.name, made.filter) == ("g-batch-smollm2-135m", "g.batch.smollm2-135m")
    assert template.instantiate("g-standard-smollm2") is None
    assert template.instantiate("g-batch-a.b") is None
    assert template.instantiate("g-batch-") is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("streams: [{name: A}]", "subjects"),
        ("streams: {", "not YAML"),
        (MINIMAL + "    color: red\n", "color"),
        (
            MINIMAL.replace("discard: new", "discard: old") + "    discard_new_per_subject: true\n",
            "needs discard",
        ),
        (MINIMAL.replace("filter: work.{priority}", "filter: work.{model}"), "name different words"),
        (MINIMAL.replace("max_mib: 1", "max_mib: 0"), "max_mib"),
        (MINIMAL + MINIMAL.replace("streams:\n", "").lstrip("\n"), "declared more than once: WORK"),
        (MINIMAL.replace("name: WORK", "name: A.B"), "name"),
    ],
)
def test_a_wrong_declaration_is_refused_with_what_is_wrong(wrong: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Declaration.parse(wrong)


def test_nothing_differs_on_a_server_that_is_as_declared() -> None:
    declaration = load()
    assert diff(declaration, as_on_a_server(declaration)) == []


def test_everything_is_to_be_created_on_an_empty_server_and_streams_come_before_consumers() -> None:
    declaration = load()
    found = diff(declaration, ServerState())
    assert {drift.remedy for drift in found} == {Remedy.CREATE}
    kinds = [drift.kind for drift in found]
    assert kinds == sorted(kinds, key=["stream", "consumer"].index)
    assert kinds.count("stream") == len(declaration.streams) + len(declaration.buckets)


def test_a_changed_field_is_named_with_both_values_and_what_can_be_done() -> None:
    declaration = Declaration.parse(MINIMAL)
    actual = as_on_a_server(declaration)
    actual.streams["WORK"]["max_bytes"] = 5
    actual.streams["WORK"]["storage"] = "memory"
    actual.consumers["WORK"]["work-batch"]["ack_wait"] = 1
    actual.consumers["WORK"]["work-batch"]["ack_policy"] = "none"
    found = {(drift.name, drift.field): drift for drift in diff(declaration, actual)}
    assert {key: drift.remedy for key, drift in found.items()} == {
        ("WORK", "max_bytes"): Remedy.UPDATE,
        ("WORK", "storage"): Remedy.RECREATE,
        ("work-batch", "ack_wait"): Remedy.UPDATE,
        ("work-batch", "ack_policy"): Remedy.RECREATE,
    }
    text = str(found["WORK", "storage"])
    assert text.startswith("stream WORK: storage is 'memory', declared 'file': cannot be changed in place")


def test_an_undeclared_consumer_is_distinguished_from_one_of_a_template() -> None:
    declaration = load()
    actual = as_on_a_server(declaration)
    consumer = declaration.stream("GENERATIONS").consumer("generations-batch-m")
    assert consumer is not None
    assert isinstance(actual.consumers["GENERATIONS"], dict)
    actual.consumers["GENERATIONS"] |= {"generations-batch-m": consumer.config(), "spy": {"name": "spy"}}
    assert diff(declaration, actual) == [
        Drift(kind="consumer", name="spy", stream="GENERATIONS", remedy=Remedy.UNDECLARED)
    ]


def test_another_number_of_replicas_is_a_difference() -> None:
    declaration = Declaration.parse(MINIMAL)
    (drift,) = diff(declaration, as_on_a_server(declaration), replicas=3)
    assert (drift.field, drift.actual, drift.declared) == ("num_replicas", 1, 3)


def test_the_queue_of_generations_may_have_the_consumers_of_all_models() -> None:
    """nats-server 2.15 allows 1000 where a stream does not say more."""
    declared = load().stream("GENERATIONS")
    assert declared.max_consumers is not None
    assert declared.max_consumers >= len(Priority) * DispatcherSettings().max_models
    assert declared.config(replicas=1)["max_consumers"] == declared.max_consumers
