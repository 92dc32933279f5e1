"""Where programs of a model are run: a process that can reach nothing."""

from __future__ import annotations
