"""How far a model is trusted: who it is, and how often it is right."""
