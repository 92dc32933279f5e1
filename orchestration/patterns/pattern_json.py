"""The catalogue of patterns as JSON."""

from __future__ import annotations

from typing import Any

from orchestration.patterns import Catalogue
from orchestration.virtual_models import PATTERN_PREFIX


def catalogue_json(catalogue: Catalogue) -> dict[str, Any]:
    """The catalogue as JSON. `settings` is the JSON schema of the request's `orchestra.settings`."""
    data = [
        {
            "id": name,
            "object": "pattern",
            "model": PATTERN_PREFIX + name,
            "description": pattern.description,
            "origin": catalogue.origin(name),
            "settings": pattern.settings.model_json_schema(),
        }
        for name, pattern in catalogue.items()
    ]
    broken = [
        {"names": each.names, "origin": each.origin, "reason": each.reason} for each in catalogue.broken
    ]
    return {"object": "list", "data": data, "broken": broken}
