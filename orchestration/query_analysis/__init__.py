"""What a query is: its kind, difficulty and length, and the profile that fits its kind."""
