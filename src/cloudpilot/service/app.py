"""The service as an ASGI application: its routes, what every request passes through, and its start and end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloudpilot.functions.admission import Admission
from cloudpilot.functions.code import Codes
from cloudpilot.functions.events import Events
from cloudpilot.functions.layers import Layers
from cloudpilot.functions.logs import Logs
from cloudpilot.functions.pools import Pools
from cloudpilot.functions.registry import Registry
from cloudpilot.hosting import failures
from cloudpilot.hosting.access import Access
from cloudpilot.hosting.builds import Builds
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.sandboxes import Sandboxes
from cloudpilot.hosting.tasks import Tasks
from cloudpilot.hosting.templates import BASE, Templates
from cloudpilot.images.store import Images
from cloudpilot.service import api, functions_api, proxy
from cloudpilot.service.e2b import control, envd
from cloudpilot.service.e2b import templates as e2b_templates
from cloudpilot.service.function_urls import FunctionUrls
from cloudpilot.service.lambda_ import api as lambda_api
from cloudpilot.service.metrics import Metrics
from cloudpilot.service.settings import Settings
from cloudpilot.service.shortcut import Shortcut, call_route
from cloudpilot.store import Store

log = logging.getLogger("cloudpilot.http")


class Observed:
    """Counts and logs every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.request(scope["method"], route, status, seconds)
            log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "ms": round(seconds * 1000, 2),
                    "client": (scope.get("client") or ("",))[0],
                },
            )


def _refused(request: Request, failure: Failure) -> Response:
    """A failure in the form that the client of this path knows."""
    path = request.url.path
    if isinstance(failure, envd.NoSandbox):
        return failure.reply()
    if path.startswith("/v1/"):
        return api.error_reply(failure)
    return control.error_reply(failure)


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    failure = failures.of(error)
    if failure is None:
        log.error("fault", exc_info=error)
        failure = Failure(Kind.INTERNAL, "The service failed", remedy="its log says why")
    return _refused(request, failure)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        failure = Failure(Kind.NOT_FOUND, f"There is nothing at `{request.url.path}`", remedy="/docs shows what there is")
    else:
        failure = Failure(Kind.INVALID, error.detail, remedy="/docs shows what there is")
    response = _refused(request, failure)
    response.status_code = error.status_code
    if error.headers:
        response.headers.update(error.headers)
    return response


def make(settings: Settings, store: Store) -> ASGIApp:
    """The application over a store that is open."""
    access = Access(store)
    images = Images(os.environ.get("CLOUDPILOT_IMAGES") or os.path.join(settings.data, "images"))
    templates = Templates(store, images)
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sandboxes = Sandboxes(store, access, templates, os.path.join(settings.data, "sandbox-logs"))
        app.state.sandboxes = sandboxes
        app.state.tasks = Tasks(store)
        app.state.builds = Builds(templates, sandboxes, settings.data)
        metrics.watch(sandboxes)
        adopted, lost = await sandboxes.adopt()
        sandboxes.prepare()
        log.info("started", extra={"adopted": adopted, "lost": lost})
        app.state.registry = Registry(store, Codes(os.path.join(settings.data, "code")), images)
        app.state.logs = Logs(os.path.join(settings.data, "function-logs"), lambda *name: app.state.registry.find(*name) is not None)
        if not images.has(BASE):
            hint = "`pilot image build base --images DIR` makes a Debian root with Python and Node"
            log.info("the template `base` shows the host's programs", extra={"hint": hint, "images": images.directory})
        app.state.layers = Layers(store)
        app.state.pools = Pools(app.state.registry, sandboxes, Admission(settings.function_memory))
        app.state.pools.on_log = app.state.logs.write
        app.state.pools.base = lambda: templates.get(BASE)
        app.state.events = Events(app.state.registry, app.state.pools)
        metrics.watch_functions(app.state.pools, app.state.events)
        yield
        app.state.events.close()
        app.state.pools.close()
        app.state.logs.close()
        await app.state.tasks.close()
        sandboxes.let_go()

    calls = lambda_api.routes()
    e2b_routes = [*control.routes(), *e2b_templates.routes(), *envd.routes()]
    app = Starlette(
        routes=[*e2b_routes, *calls, *api.routes(metrics, functions_api.OPERATIONS)],
        lifespan=lifespan,
        exception_handlers={HTTPException: _on_http_error, **dict.fromkeys((*failures.KNOWN, ClientDisconnect, Exception), _on_error)},
    )
    state: Any = app.state
    state.settings, state.access, state.templates, state.store = settings, access, templates, store
    state.idempotency = {}
    state.domain = settings.domain or f"localhost:{settings.port}"
    proxy.Tunnel.state = state
    shortcut = Shortcut(app, call_route(calls), _on_error)
    return Observed(proxy.Ports(FunctionUrls(shortcut, state), state), metrics)


class JsonFormatter(logging.Formatter):
    """Log lines as JSON objects, one a line."""

    _USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        value = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: each for name, each in vars(record).items() if name not in self._USUAL},
        }
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return json.dumps(value, default=str)
