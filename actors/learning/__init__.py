"""Records what runs and user ratings show, in buckets that all agents and gateways share.

Nothing is imported here, so that reading the settings stays fast.
"""
