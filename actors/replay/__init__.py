"""`orchestra eval --replay`: patterns on answers that models gave before, without asking the models again."""
