"""How fast a model is on a node: the measured rates, blended with an estimate from the hardware.

The estimate is the roofline of decoding (Pope et al., "Efficiently Scaling Transformer Inference", 2022):
each token reads all weights once, so it is bound by memory bandwidth; a prompt costs two operations per
parameter and token, so it is bound by arithmetic.
"""

from __future__ import annotations

from orchestration.messages import Hardware, ModelCard, ModelRates

TRUSTED_SAMPLES = 4
"""Number of measurements that weigh as much as the estimate."""

CORE_BYTES_S = 6e9
"""Bytes per second that one core reads; SmolLM2-135M's 114 MB on two cores give 117–130 tokens/s."""
CPU_BYTES_S = 200e9
"""Maximum bytes per second of all cores of a server."""
CORE_FLOPS = 60e9
ACCELERATOR_BYTES_S = 800e9
ACCELERATOR_FLOPS = 60e12
OVERHEAD_S = 0.01
SWAPPING = 20.0
"""Factor on the time of a token when the weights do not fit into memory."""
SHARED = 0.125
"""Estimated share of a token's time that each concurrent generation adds."""
UNKNOWN = ModelRates(first_s=0.05, prompt_token_s=0.001, token_s=0.02, token_s_per_other=0.0025)
"""Rates of a server that reports neither its hardware nor the model's size: 50 tokens/s."""


def default_rates(card: ModelCard, hardware: Hardware) -> ModelRates:
    """The estimate. A model of unknown size gets the rates `UNKNOWN`."""
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
    """The measurements, blended with the estimate while there are few."""
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
