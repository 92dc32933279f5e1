"""What agents can look up: documents that users add, found by meaning and by words.

Nothing is imported here, so that reading the settings stays cheap.
"""
