"""Parses the devices of a model's parts: `cpu`, `cuda:N`, or a list."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestration.errors import InvalidRequest

_GPU = re.compile(r"cuda:([0-9]{1,3})")


@dataclass(frozen=True, slots=True)
class Device:
    """The CPU, or the GPU with this number."""

    gpu: int | None = None

    def __str__(self) -> str:
        return "cpu" if self.gpu is None else f"cuda:{self.gpu}"

    @property
    def instance_group(self) -> str:
        """The fields of an `instance_group` in config.pbtxt."""
        return "kind: KIND_CPU" if self.gpu is None else f"kind: KIND_GPU gpus: [ {self.gpu} ]"


def parse_devices(text: str, parts: int) -> list[Device]:
    """A device for each of `parts`, from one for all (`cpu`) or a list with one each (`cuda:0,cuda:1`).

    Raises `InvalidRequest`.
    """
    found = []
    for word in text.split(","):
        gpu = _GPU.fullmatch(word.strip())
        if gpu is None and word.strip() != "cpu":
            raise InvalidRequest(
                f"{word.strip()!r} is not a device: write cpu, cuda:0, or one for each part: cuda:0,cuda:1",
                param="device",
            )
        found.append(Device(int(gpu[1]) if gpu else None))
    if len(found) not in (1, parts):
        raise InvalidRequest(
            f"{len(found)} devices ({text}) do not fit {parts} {'part' if parts == 1 else 'parts'}: name one "
            "for all, or one for each of --partitions",
            param="device",
        )
    return found * parts if len(found) == 1 else found
