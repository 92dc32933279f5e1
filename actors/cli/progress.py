"""A model made ready, with progress bars while that takes time."""

from __future__ import annotations

from pathlib import Path

from actors.cli.models import StageBars
from actors.models.pull import ensure


def pulled(source: str, models_folder: Path) -> Path:
    """The folder of the model, pulled and imported first where it is not there yet."""
    with StageBars() as bars:
        return ensure(source, models_folder, bars)
