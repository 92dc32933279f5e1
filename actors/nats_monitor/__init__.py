"""What the NATS server knows of itself: the depth of queues, limits, advisories, and its message traces."""
