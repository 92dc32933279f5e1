"""Finds the files that an installation ships as data."""
