"""`orchestra eval`: questions with known answers, asked of every pattern under the same budget."""
