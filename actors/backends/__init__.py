"""The interface of a backend, and the backends that need no inference engine of ours."""
