"""Lambda's API: the routes of all its operations, those that are used most first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudpilot.service.lambda_ import absent, downloads, functions, invoke, layers, policies, settings, urls, versions

if TYPE_CHECKING:
    from starlette.routing import Route


def routes() -> list[Route]:
    """The API's routes."""
    modules = (invoke, functions, versions, settings, policies, layers, urls, downloads, absent)
    return [route for module in modules for route in module.routes()]
