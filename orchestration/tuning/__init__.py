"""Looking at a query, choosing how to answer it, and learning from how that went."""
