"""Checks of addresses that foreign data names."""
