"""Pulls models to a node on the order of operators, in threads, and has the node offer them."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from actors.models.catalogue import catalogue
from actors.models.download import PullProgress
from actors.models.errors import ModelStorage
from actors.models.pull import ensure, ready
from actors.node.model_manager import ModelManager
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error
from orchestration.errors import InvalidRequest, NodeBusy, UnknownModel
from orchestration.messages import ModelPull

log = logging.getLogger(__name__)

MAX_RUNNING = 2
"""Maximum pulls at a time."""
REMEMBERED = 20
"""The latest pulls that are remembered."""


class ModelPuller:
    """The pulls of one node to `folder`. Use it from its event loop."""

    def __init__(self, node: str, models: ModelManager, folder: Path | None) -> None:
        self.node = node
        self.models = models
        self.folder = folder
        self._pulls: OrderedDict[str, ModelPull] = OrderedDict()
        self._offering: set[asyncio.Task[None]] = set()

    @property
    def pulls(self) -> tuple[ModelPull, ...]:
        """The latest pulls, the last one first."""
        return tuple(reversed(self._pulls.values()))

    def begin(self, model: str) -> ModelPull:
        """Begin to pull a model of the catalogue, or return the pull of it that runs.

        Raises `UnknownModel` for a name that is not in the catalogue, `InvalidRequest` where the backend
        serves no folders, or the model is larger than the node's memory, `ModelStorage` when the disk has no
        room, and `NodeBusy` beyond `MAX_RUNNING`.
        """
        running = [pull for pull in self._pulls.values() if pull.state == "running"]
        for pull in running:
            if pull.model == model:
                return pull
        folder = self._check(model)
        if len(running) >= MAX_RUNNING:
            raise NodeBusy(f"limit reached: node {self.node} runs {MAX_RUNNING} pulls", retry_after_s=10)
        pull = ModelPull(
            id=f"pull-{token_hex(4)}", node=self.node, model=model, stage="starting", started_at=time.time()
        )
        self._pulls[pull.id] = pull
        if len(self._pulls) > REMEMBERED:
            self._pulls.pop(next(each.id for each in self._pulls.values() if each.state != "running"))
        loop = asyncio.get_running_loop()
        # A thread that does not keep the process from ending; its downloads end with the process.
        arguments = (loop, pull.id, model, folder)
        threading.Thread(target=self._pull, args=arguments, name=pull.id, daemon=True).start()
        return pull

    def _check(self, model: str) -> Path:
        entry = catalogue().get(model)
        if entry is None:
            raise UnknownModel.of(model, list(catalogue()))
        backend = self.models.backend
        if self.folder is None or not backend.serves_folders:
            raise InvalidRequest(
                f"node {self.node} has the {backend.name} backend: nothing can be pulled to it"
            )
        self.models.check_room(model, entry.files["weights"].bytes)
        if ready(model, self.folder) is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            _check_space(self.folder, model, entry.needed_bytes)
        return self.folder

    def _pull(self, loop: asyncio.AbstractEventLoop, pull_id: str, model: str, folder: Path) -> None:
        """Download and import; runs in a thread."""

        def report(progress: PullProgress) -> None:
            fields = {"stage": progress.stage, "done": progress.done, "total": progress.total}
            self._later(loop, lambda: self._update(pull_id, **fields))

        try:
            path = ensure(model, folder, report)
        except UNEXPECTED_ERRORS as error:
            failure = internal_error(f"the pull of model {model}", error, "node")
            fields = {"state": "failed", "error": failure.body(), "ended_at": time.time()}
            self._later(loop, lambda: self._update(pull_id, **fields))
            return
        self._later(loop, lambda: self._begin_offer(pull_id, path))

    @staticmethod
    def _later(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and the process ends
            loop.call_soon_threadsafe(call)

    def _begin_offer(self, pull_id: str, path: Path) -> None:
        task = asyncio.get_running_loop().create_task(self._offer(pull_id, path))
        self._offering.add(task)
        task.add_done_callback(self._offering.discard)

    async def _offer(self, pull_id: str, path: Path) -> None:
        self._update(pull_id, stage="offering", done=0.0, total=0.0)
        try:
            await self.models.add(path)
        except UNEXPECTED_ERRORS as error:
            failure = internal_error(f"offering the model in {path}", error, "node")
            self._update(pull_id, state="failed", error=failure.body(), ended_at=time.time())
            return
        log.info("node %s pulled the model %s and offers it", self.node, path.name)
        self._update(pull_id, state="done", stage="done", ended_at=time.time())

    def _update(self, pull_id: str, **fields: Any) -> None:
        pull = self._pulls.get(pull_id)
        if pull is not None:
            self._pulls[pull_id] = pull.model_copy(update=fields)


def _check_space(folder: Path, model: str, needed_bytes: int) -> None:
    """Raises `ModelStorage` with the figures; `ensure` checks it again."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise ModelStorage(
            f"model {model!r} needs {needed_bytes / 1e6:.0f} MB of disk under {folder}, and "
            f"{free_bytes / 1e6:.0f} MB are free: free some space, or pull a smaller model"
        )
