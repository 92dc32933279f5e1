"""The forecast of requests per model, for `orchestra status`."""

from __future__ import annotations

from actors.bus.bus import Bus
from actors.bus.key_value import Bucket
from actors.dispatcher.prewarmer import FORECAST, STATE, SavedForecast

SHOWN = 8
LEAST_EXPECTED = 0.01
"""Number of generations from which on a model is shown."""


async def forecast_of(bus: Bus) -> SavedForecast | None:
    """The saved forecast, at most half a minute old; None if there is none."""
    entry = await Bucket(bus, FORECAST).get(STATE)
    return None if entry is None or entry.value is None else SavedForecast.model_validate_json(entry.value)


def forecast_line(forecast: SavedForecast) -> str:
    """The line about the models with the most expected generations."""
    most = sorted(forecast.expected.items(), key=lambda each: (-each[1], each[0]))
    models = ", ".join(f"{model} {count:.3g}" for model, count in most[:SHOWN] if count >= LEAST_EXPECTED)
    return f"generations expected in the next {forecast.horizon_s / 60:.0f} min: {models or 'none'}"
