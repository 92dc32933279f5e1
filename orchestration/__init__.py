"""The pure decisions of Orchestra: no sockets, no files, no clock."""
