"""Chooses how to answer a query, and learns from how earlier answers did."""
