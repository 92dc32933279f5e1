"""`orchestra eval`: asks every pattern questions with known answers, under the same budget."""
