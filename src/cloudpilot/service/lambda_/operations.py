"""What all operations of the API share: signature, role, the function that a path names, pages of lists."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.routing import Route

from cloudpilot.functions.errors import FunctionError, invalid
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.service.http import body
from cloudpilot.service.lambda_ import sigv4
from cloudpilot.service.lambda_.checking import constraint
from cloudpilot.service.lambda_.errors import error_reply
from cloudpilot.service.lambda_.names import Named, function_named, layer_named

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from cloudpilot.functions.layers import Layers
    from cloudpilot.functions.registry import Registry
    from cloudpilot.hosting.access import Caller

    Handler = Callable[["Call"], Awaitable[Response]]

LARGEST_REQUEST = 1 << 20
"""Bytes of a request that brings no code and no payload."""
MOST_ITEMS = 50
"""Entries of a page, as with Lambda, whatever more a client asks for."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """A request as its handler sees it."""

    request: Request
    caller: Caller
    text: bytes

    @property
    def state(self) -> Any:
        """What the application holds."""
        return self.request.app.state

    @property
    def project(self) -> str:
        """Whose functions it is about."""
        return self.caller.project

    @property
    def registry(self) -> Registry:
        """All functions."""
        registry: Registry = self.request.app.state.registry
        return registry

    @property
    def layers(self) -> Layers:
        """All layers."""
        layers: Layers = self.request.app.state.layers
        return layers

    def query(self, name: str) -> str | None:
        """A parameter of the query string."""
        return self.request.query_params.get(name) or None

    def named(self) -> Named:
        """The function that the path names, with its qualifier."""
        return function_named(self.request.path_params["name"], self.query("Qualifier"))

    def whole(self) -> str:
        """The function that the path names, where a version has no place."""
        return function_named(self.request.path_params["name"]).unqualified()

    def qualified(self) -> Named:
        """The function that the path names, and a version or alias of it that there is."""
        named = self.named()
        self.registry.check_qualifier(self.project, named.name, named.qualifier)
        return named

    def layer(self) -> str:
        """The layer that the path names."""
        return layer_named(self.request.path_params["name"])

    def note(self, action: str, target: str) -> None:
        """Writes into the audit log who did what."""
        self.state.access.note(self.caller, action, target)

    def page(self, items: Sequence[T], most: int = MOST_ITEMS) -> tuple[Sequence[T], str | None]:
        """The part of a list that is asked for, and what to ask for the next one with."""
        text = self.query("MaxItems")
        if text is not None and not (text.isdigit() and 1 <= int(text) <= 10000):
            raise constraint(text, "maxItems", "have value between 1 and 10000")
        count = min(most, int(text) if text else most)
        first = _position(self.query("Marker"))
        rest = first + count < len(items)
        return items[first : first + count], base64.urlsafe_b64encode(str(first + count).encode()).decode() if rest else None


def _position(marker: str | None) -> int:
    if marker is None:
        return 0
    try:
        return int(base64.urlsafe_b64decode(marker))
    except ValueError:
        raise invalid("The marker is not one that a list answered") from None


def listed(name: str, items: Sequence[Any], marker: str | None) -> dict[str, Any]:
    """A page of a list as the API has it."""
    return {name: list(items), **({} if marker is None else {"NextMarker": marker})}


def signed(handler: Handler, role: str, most: int) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that answers those only who have signed their request and have that role."""

    async def serve(request: Request) -> Response:
        try:
            try:
                text = await body(request, most)
            except Failure as failure:
                raise FunctionError("RequestTooLargeException", failure.message) from None
            caller = sigv4.verify(request, text, request.app.state.access)
            caller.need(role)
            return await handler(Call(request, caller, text))
        except FunctionError as error:
            return error_reply(error)
        except Failure as failure:
            return error_reply(translated(failure))

    return serve


def translated(failure: Failure) -> FunctionError:
    """A failure of the service in Lambda's words."""
    kinds = {
        Kind.FORBIDDEN: "AccessDeniedException",
        Kind.LIMIT: "TooManyRequestsException",
        Kind.NOT_FOUND: "ResourceNotFoundException",
        Kind.INVALID: "InvalidParameterValueException",
        Kind.TOO_LARGE: "RequestTooLargeException",
    }
    return FunctionError(kinds.get(failure.kind, "ServiceException"), failure.sentence())


def route(path: str, method: str, handler: Handler, most: int = LARGEST_REQUEST) -> Route:
    """A route to an operation: whoever may look may use those that only look."""
    return Route(path, signed(handler, "read-only" if method == "GET" else "user", most), methods=[method])
