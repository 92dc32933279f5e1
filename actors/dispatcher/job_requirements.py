"""What a job needs of its node, as its sender has stated in a header."""

from __future__ import annotations

import logging
from functools import lru_cache

from actors.dispatcher.job import Job
from orchestration.placement import NEEDS_HEADER, Needs

log = logging.getLogger(__name__)


@lru_cache(maxsize=4096)
def _decode(model: str, text: str) -> Needs:
    try:
        return Needs.decode(model, text)
    except ValueError as error:
        log.warning("cannot read the needs of a generation of model %r: %s", model, error)
        return Needs(model=model)


def needs_of(job: Job) -> Needs:
    """The needs in the job's header; default needs when the header cannot be read."""
    return _decode(job.queue.model, job.delivery.message.header(NEEDS_HEADER))
