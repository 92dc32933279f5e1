"""A backend for any server with the OpenAI API."""

from actors.backends.openai.backend import OpenAIBackend
from actors.backends.openai.settings import OpenAISettings

__all__ = ["OpenAIBackend", "OpenAISettings"]
