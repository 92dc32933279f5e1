"""NATS: one connection, JetStream queues, key-value buckets, subjects, and the declaration of streams."""
