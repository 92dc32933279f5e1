"""The score: pure decisions of Orchestra. No sockets, no files, no clock of its own."""
