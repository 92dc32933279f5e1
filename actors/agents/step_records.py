"""The finished steps of a run in the bucket `steps`, until the run has ended."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from actors.agents.metrics import STEPS_RECORDED
from actors.bus.bus import Bus
from actors.bus.key_value import Conflict
from actors.bus.key_value_folder import Folder
from orchestration.errors import OrchestraError
from orchestration.patterns import StepRecord

log = logging.getLogger(__name__)

BUCKET = "steps"
_RECORDED, _TAKEN, _FAILED = (STEPS_RECORDED.labels(how) for how in ("recorded", "taken", "failed"))


class StepRecords:
    """The `Keeper` of one run. A step is created, never overwritten, so that of two coordinators that have
    the same run, as when one was frozen, both go by what the first recorded.

    Nothing here fails a run: without its records it pays for steps again if it is taken up, and that is all.
    """

    def __init__(self, bus: Bus, run_id: str) -> None:
        self.folder = Folder(bus, BUCKET, folder=run_id)
        self.used = False
        """Whether there is anything to remove."""

    async def known(self) -> dict[str, StepRecord]:
        """What earlier coordinators recorded, by the names of the steps."""
        try:
            found = {
                name: StepRecord.model_validate_json(value)
                for name, value in (await self.folder.all()).items()
            }
        except (OrchestraError, ValidationError) as error:
            _FAILED.inc()
            log.warning("run %s begins anew: its steps cannot be read: %s", self.folder.folder, error)
            return {}
        self.used = self.used or bool(found)
        return found

    async def keep(self, record: StepRecord) -> StepRecord:
        try:
            return await self._create(record)
        except (OrchestraError, ValidationError) as error:
            _FAILED.inc()
            log.warning("step %r of run %s is not recorded: %s", record.step.name, self.folder.folder, error)
            return record

    async def _create(self, record: StepRecord) -> StepRecord:
        name, value = record.step.name, record.model_dump_json(exclude_defaults=True).encode()
        self.used = True
        try:
            await self.folder.put(name, value, last=0)
        except Conflict:
            present = await self.folder.latest(name, sure=True)
            first = StepRecord.model_validate_json(present.value) if present.value is not None else None
            if first is not None and first.fingerprint == record.fingerprint:
                _TAKEN.inc()
                return first
            await self.folder.put(name, value, last=present.revision)  # the same name, another request
        _RECORDED.inc()
        return record

    async def remove(self) -> None:
        """The run has ended."""
        if not self.used:
            return
        try:
            await self.folder.remove()
        except OrchestraError as error:
            log.info("the steps of run %s stay until they expire: %s", self.folder.folder, error)
