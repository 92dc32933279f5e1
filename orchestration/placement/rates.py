"""How fast a model is on a node: as measured, and before that as its hardware lets one guess.

The guess is the roofline of decoding (Pope et al., "Efficiently Scaling Transformer Inference", 2022): each
token reads all weights once, so memory bandwidth bounds it; reading a prompt costs two operations a parameter
and token, so arithmetic bounds that.
"""

from __future__ import annotations

from orchestration.messages import Hardware, ModelCard, ModelRates

TRUSTED_SAMPLES = 4
"""A guess counts as much as so many measurements."""

CORE_BYTES_S = 6e9
"""Memory read a second for each core; SmolLM2-135M's 114 MB on two cores give 117–130 tokens/s."""
CPU_BYTES_S = 200e9
"""All cores of a server together."""
CORE_FLOPS = 60e9
ACCELERATOR_BYTES_S = 800e9
ACCELERATOR_FLOPS = 60e12
OVERHEAD_S = 0.01
SWAPPING = 20.0
"""Times slower where the weights do not fit into memory."""
SHARED = 0.125
"""A guessed share of a token's time that each other generation at work adds."""
UNKNOWN = ModelRates(first_s=0.05, prompt_token_s=0.001, token_s=0.02, token_s_per_other=0.0025)
"""Of a server that says nothing of itself or of its model: 50 tokens/s."""


def default_rates(card: ModelCard, hardware: Hardware) -> ModelRates:
    """The guess. A model of unknown size is taken for an unknown server's."""
    size = card.memory_bytes or card.parameters
    if not size:
        return UNKNOWN
    parameters = card.parameters or card.memory_bytes
    if hardware.accelerators:
        bandwidth, arithmetic = ACCELERATOR_BYTES_S, ACCELERATOR_FLOPS
    else:
        bandwidth = min(CORE_BYTES_S * hardware.cores, CPU_BYTES_S)
        arithmetic = CORE_FLOPS * hardware.cores
    token_s = size / max(bandwidth, 1.0)
    if not hardware.accelerators and size > hardware.memory_bytes > 0:
        token_s *= SWAPPING
    return ModelRates(
        first_s=OVERHEAD_S,
        prompt_token_s=2 * parameters / max(arithmetic, 1.0),
        token_s=token_s,
        token_s_per_other=SHARED * token_s,
    )


def blended_rates(measured: ModelRates | None, card: ModelCard, hardware: Hardware) -> ModelRates:
    """The measurements, mixed with the guess as long as they are few."""
    guess = default_rates(card, hardware)
    if measured is None or not measured.samples:
        return guess
    share = measured.samples / (measured.samples + TRUSTED_SAMPLES)

    def mixed(measurement: float, default: float) -> float:
        return share * measurement + (1 - share) * default

    return ModelRates(
        samples=measured.samples,
        first_s=mixed(measured.first_s, guess.first_s),
        prompt_token_s=mixed(measured.prompt_token_s, guess.prompt_token_s),
        token_s=mixed(measured.token_s, guess.token_s),
        token_s_per_other=mixed(measured.token_s_per_other, guess.token_s_per_other),
        error_rate=measured.error_rate,
        slowdown=measured.slowdown,
    )
