"""Hides the secrets among settings where they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

from actors.config.key_hash import HASHED, SHOWN, is_hash
from actors.config.setting_names import Path

SECRET_WORDS = ("password", "secret", "token", "key")
MASK = "********"


def shown(path: Path, value: Any) -> Any:
    """The value as it may be shown: a hashed key by its begin, another secret as `MASK`, a URL without its
    password."""
    last = path[-1]
    secret = any(last == word or last.endswith("_" + word) for word in SECRET_WORDS)
    if isinstance(value, SecretStr):
        secret, value = True, value.get_secret_value()
    if secret and value:
        return f"{value[: len(HASHED) + SHOWN]}…" if isinstance(value, str) and is_hash(value) else MASK
    if isinstance(value, str) and "@" in value and "://" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://{MASK}@{rest.rpartition('@')[2]}"
    return value


def shown_values(root: BaseModel) -> dict[Path, Any]:
    """Every single value of the settings by its path, as it may be shown."""
    values: dict[Path, Any] = {}

    def walk(path: Path, value: Any) -> None:
        if isinstance(value, BaseModel):
            for name in type(value).model_fields:
                walk((*path, name), getattr(value, name))
        elif isinstance(value, Mapping) and value:
            for name, inner in value.items():
                walk((*path, str(name)), inner)
        else:
            values[path] = shown(path, value)

    walk((), root)
    return values
