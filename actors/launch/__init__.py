"""Starts the roles of a process: `orchestra up`, and what all processes share."""
