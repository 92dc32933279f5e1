"""Generations wait in the order in which they came, also those that come back from a node."""

from __future__ import annotations

import pytest

from actors.placement.job import Job
from actors.placement.pending_queue import PendingQueue
from actors.runtime.envelope import Envelope
from actors.streams.handoff import LocalReader
from actors.streams.reader import StreamReader
from orchestration.messages import Priority
from orchestration.placement import Needs


def job(number: int) -> Job:
    return Job(
        id=str(number),
        model="m",
        priority=Priority.STANDARD,
        envelope=Envelope(),
        needs=Needs(model="m"),
        work=b"",
        reader=LocalReader(StreamReader(lambda seq: None)),
        received_at=float(number),
    )


@pytest.mark.parametrize("back", [(0, 1), (1, 0), (2, 3), (4,)])
def test_those_that_come_back_from_a_node_wait_in_their_order(back: tuple[int, ...]) -> None:
    pending: PendingQueue[Job] = PendingQueue()
    jobs = [job(number) for number in range(5)]
    for each in jobs:
        pending.push(each)
    for number in back:
        pending.remove(jobs[number])
    assert pending.in_order("m", 9) == [each for each in jobs if each.waits]
    for number in back:
        pending.push(jobs[number])
    assert pending.in_order("m", 9) == jobs
    for each in jobs:
        pending.remove(each)
    assert not pending.models
