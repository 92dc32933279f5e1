"""The implementation of the models in `triton_models`; imported by their `model.py` inside Triton."""
