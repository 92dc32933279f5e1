"""Patterns that users bring: from installed packages, and from files that the settings name.

Nothing is imported here, so that reading the settings stays cheap.
"""
