"""Metrics and traces, and the memory of a process."""
