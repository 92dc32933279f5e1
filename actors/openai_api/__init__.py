"""Encodes answers as the OpenAI API defines them: whole, and as events."""
