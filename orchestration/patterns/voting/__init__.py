"""A vote among voters: different models, or samples of one model."""

from orchestration.patterns.voting.voters import MAX_VOTERS, Voter, choose_voters
from orchestration.patterns.voting.voting import VotePatience, VoteRules, Voting

__all__ = ["MAX_VOTERS", "VotePatience", "VoteRules", "Voter", "Voting", "choose_voters"]
