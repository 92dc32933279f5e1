"""Metrics of the settings that are changed while processes run."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

REVISION = Gauge("orchestra_settings_revision", "Revision of the cluster's settings that this process uses")
REFUSED = Counter(
    "orchestra_settings_refused",
    "Values and documents of the cluster's settings that this process did not take, as it does not know the "
    "setting or the settings would be invalid together",
)
