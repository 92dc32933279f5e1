"""Checks of network addresses that callers give."""
