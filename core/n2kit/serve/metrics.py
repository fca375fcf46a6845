"""Counters of a server, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("n2kit_requests", "Requests, by route and status.", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "n2kit_request_seconds", "Time of a request.", ["route"], buckets=SECONDS, registry=own
        )
        self.refused = Counter("n2kit_refused", "Requests refused with 429.", registry=own)
        self.in_flight = Gauge("n2kit_in_flight", "Requests at work.", registry=own)
        self.items = Counter("n2kit_encoded_items", "Items that were encoded.", registry=own)
        self.tokens = Counter("n2kit_encoded_tokens", "Tokens that were encoded.", registry=own)
        self.batches = Histogram("n2kit_batch_items", "Items of one model call.", buckets=ITEMS, registry=own)
        self.reloads = Counter("n2kit_reloads", "Reloads of the indexes, by outcome.", ["outcome"], registry=own)

    def batch(self, items: int, tokens: int) -> None:
        """Count one model call."""
        self.items.inc(items)
        self.tokens.inc(tokens)
        self.batches.observe(items)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is asked for its value."""
        Gauge(name, text, registry=self.registry).set_function(value)
