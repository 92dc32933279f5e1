"""Trust in models: which names mean the same model, and how often each model is right."""
