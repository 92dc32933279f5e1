"""Votes among voices, of different models or of one."""

from orchestration.patterns.voting.voices import MOST, Voice, cast
from orchestration.patterns.voting.vote import Rules, Vote

__all__ = ["MOST", "Rules", "Voice", "Vote", "cast"]
