"""What this installation has: its data files, and the packages of its extras."""
