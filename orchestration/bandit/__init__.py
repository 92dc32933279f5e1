"""Chooses how to answer a query, by what is known of earlier answers."""
