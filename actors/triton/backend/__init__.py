"""A backend for NVIDIA's Triton Inference Server."""
