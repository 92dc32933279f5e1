"""Keeps what runs and users teach, in buckets that all agents and gateways share.

Nothing is imported here, so that reading the settings stays cheap.
"""
