"""Sentence vectors in the process that needs them, without a node."""
