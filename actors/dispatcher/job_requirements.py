"""What a job needs of its node, as its asker worked it out."""

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
        log.warning("the needs of a generation of %r cannot be read: %s", model, error)
        return Needs(model=model)


def needs_of(job: Job) -> Needs:
    """What its asker said of it."""
    return _decode(job.queue.model, job.delivery.message.header(NEEDS_HEADER))
