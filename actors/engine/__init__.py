"""The continuous-batching engine. Anything that computes logits can be its runtime: see `runtime`."""
