"""Encodes responses as the OpenAI API defines them: complete, or as a stream of chunks."""
