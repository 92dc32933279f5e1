"""The agents: a coordinator that performs runs, and specialists with a role each.

Nothing is imported here, so that reading the settings stays cheap.
"""
