"""Metrics, traces and the memory of a process."""
