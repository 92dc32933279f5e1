"""The events of a generation or a run: written, read, replayed, and handed over to another process."""
