"""Tools that a role can use: ours, and those of MCP servers.

Nothing is imported here, so that reading the settings stays cheap.
"""
