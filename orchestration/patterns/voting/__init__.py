"""Votes among voters, of different models or samples of one."""

from orchestration.patterns.voting.voters import MOST, Voter, choose_voters
from orchestration.patterns.voting.voting import Rules, Voting

__all__ = ["MOST", "Rules", "Voter", "Voting", "choose_voters"]
