"""Metrics: Prometheus, base units, bounded labels. Every bounded thing shows its fill and its bound here.

Source: design §9. Labels never hold an id of a call or of a person.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY: Final = CollectorRegistry()
_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

INPUTS: Final = Counter("dialer_inputs_total", "Inputs taken by owners", ["kind"], registry=REGISTRY)
EVENTS: Final = Counter("dialer_events_total", "Events committed to the log", ["type"], registry=REGISTRY)
REJECTED: Final = Counter("dialer_rejected_total", "Input refused", ["rule"], registry=REGISTRY)
COMMIT_SECONDS: Final = Histogram(
    "dialer_commit_seconds", "Batch decided to commit answered", buckets=_FAST, registry=REGISTRY
)
OWNED: Final = Gauge("dialer_owned_partitions", "Partitions owned by this process", registry=REGISTRY)
OWNERSHIPS_LOST: Final = Counter("dialer_ownerships_lost_total", "Ownerships ended by an error", registry=REGISTRY)
ALARMS: Final = Counter("dialer_alarms_total", "Things somebody must look at", ["what"], registry=REGISTRY)
FILL: Final = Gauge("dialer_bound_fill", "How full a bounded thing is", ["what"], registry=REGISTRY)
BOUND: Final = Gauge("dialer_bound_max", "The bound itself", ["what"], registry=REGISTRY)
GATE: Final = Counter("dialer_gate_total", "Verdicts of the gate", ["verdict"], registry=REGISTRY)
DIALS: Final = Counter("dialer_dials_total", "Dial requests by result", ["result"], registry=REGISTRY)
LIVEKIT_SECONDS: Final = Histogram(
    "dialer_livekit_request_seconds", "LiveKit requests", ["method", "result"], buckets=_FAST, registry=REGISTRY
)
WEBHOOKS: Final = Counter("dialer_webhooks_total", "Webhooks by what became of them", ["result"], registry=REGISTRY)
PROJECTED: Final = Counter("dialer_projected_total", "Records folded into read models", ["model"], registry=REGISTRY)
PROJECTION_LAG: Final = Gauge("dialer_projection_lag_records", "Records not yet folded", ["model"], registry=REGISTRY)


def exposition() -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
