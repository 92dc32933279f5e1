"""The contents of this installation: data files, and packages of extras."""
