"""The interface of a backend, and the backends without an inference engine of their own."""
