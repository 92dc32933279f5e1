"""Runs the programs that a model wrote in a process that can reach nothing."""
