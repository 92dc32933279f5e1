"""What the models of `triton_models` do inside Triton; imported by their `model.py`."""
