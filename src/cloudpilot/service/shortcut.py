"""A way past the router for the one request that comes thousands of times a second: a call of a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send

_BEFORE, _BEHIND = "/2015-03-31/functions/", "/invocations"


class Shortcut:
    """The application, asked at once where the path says everything. Answers are those that the router would have led to."""

    def __init__(self, app: ASGIApp, route: Route, on_error: Callable[[Request, Exception], Awaitable[Response]]) -> None:
        self._app = app
        self._route = route
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        path: str = scope.get("path", "")
        name = path[len(_BEFORE) : -len(_BEHIND)]
        if not (path.startswith(_BEFORE) and path.endswith(_BEHIND) and name and "/" not in name and scope.get("method") == "POST"):
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        scope["route"] = self._route
        scope["path_params"] = {"name": name}
        request = Request(scope, receive)
        try:
            response = await self._route.endpoint(request)
        except Exception as error:
            response = await self._on_error(request, error)
        await response(scope, receive, send)


def call_route(routes: list[Route]) -> Route:
    """The route of calls."""
    return next(route for route in routes if route.path == _BEFORE + "{name}" + _BEHIND)
