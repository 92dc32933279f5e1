"""Places generations on nodes and watches over them: for dispatchers and for direct callers."""
