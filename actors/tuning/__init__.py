"""What becomes of what runs teach: kept in buckets that all agents and gateways share.

Nothing is imported here, so that reading the settings stays cheap.
"""
