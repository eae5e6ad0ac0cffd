"""Figures for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from cloudpilot.functions.events import Events
    from cloudpilot.functions.pools import Pools
    from cloudpilot.hosting.sandboxes import Sandboxes

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The service's figures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("cloudpilot_http_requests", "Requests that were answered", labels, registry=self._registry)
        self._seconds = Histogram(
            "cloudpilot_http_request_seconds", "How long requests took", ("route",), buckets=_BUCKETS, registry=self._registry
        )
        # Looking for a figure by its labels takes longer than counting does.
        self._known: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; a status of 0 is a client that hung up before."""
        counter, timer = self._known.get((method, route, status)), self._timers.get(route)
        if counter is None or timer is None:
            known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE") else "other"
            counter, timer = self._requests.labels(known, route, str(status)), self._seconds.labels(route)
            if known == method:
                self._known[method, route, status], self._timers[route] = counter, timer
        counter.inc()
        timer.observe(seconds)

    def watch(self, sandboxes: Sandboxes) -> None:
        """Shows figures of sandboxes, too."""
        figures: list[tuple[str, str, Callable[[], float]]] = [
            ("cloudpilot_sandboxes", "Sandboxes that there are", sandboxes.count),
            ("cloudpilot_sandboxes_waiting", "Sandboxes that were started in advance and wait to be used", sandboxes.waiting),
            ("cloudpilot_sandboxes_started", "Sandboxes that were started", lambda: sandboxes.started),
            ("cloudpilot_sandboxes_failed", "Sandboxes that could not be started", lambda: sandboxes.failed),
        ]
        self._show(figures)

    def watch_functions(self, pools: Pools, events: Events) -> None:
        """Shows figures of functions, too, and of what the event loop has to do."""
        self._show(
            [
                ("cloudpilot_function_instances", "Instances of functions", lambda: pools.figures()["instances"]),
                ("cloudpilot_function_instances_idle", "Instances that could serve another call", lambda: pools.figures()["idle"]),
                ("cloudpilot_function_calls", "Calls that are served or wait for an instance", lambda: pools.figures()["under_way"]),
                ("cloudpilot_function_calls_waiting", "Calls that wait for an instance", lambda: pools.figures()["waiting"]),
                ("cloudpilot_function_events", "Asynchronous calls that are not done yet", events.waiting),
                ("cloudpilot_tasks", "Tasks of the event loop", lambda: len(asyncio.all_tasks())),
            ]
        )

    def _show(self, figures: list[tuple[str, str, Callable[[], float]]]) -> None:
        for name, text, read in figures:
            Gauge(name, text, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)
