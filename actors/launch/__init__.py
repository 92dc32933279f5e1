"""Starts the roles of a process: what every process shares, and `orchestra up`."""
