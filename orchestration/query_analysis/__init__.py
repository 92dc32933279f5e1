"""What a query is: its kind, difficulty, length and language, and the profile that fits its kind."""
