"""A process that pulls a model and says where it is, for tests that kill it or run two of them.

python -m tests.actors.models.puller NAME MODELS_DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from actors.models.download import PullProgress
from actors.models.pull import ensure


def main() -> None:
    """Prints `STAGE`, done and total for every step of progress, then `ready` and the folder."""

    def tell(progress: PullProgress) -> None:
        print(f"{progress.stage}\t{progress.done}\t{progress.total}", flush=True)

    print(f"ready\t{ensure(sys.argv[1], Path(sys.argv[2]), tell)}", flush=True)


if __name__ == "__main__":
    main()
