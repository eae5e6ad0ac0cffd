"""Code as it was brought, given back to those who were shown its address: the address opens it for ten minutes, as Lambda's do."""

from __future__ import annotations

import hmac
import os
import re
import time
from typing import TYPE_CHECKING

import anyio.to_thread
from starlette.responses import FileResponse
from starlette.routing import Route

from cloudpilot.functions.errors import FunctionError, missing
from cloudpilot.service.lambda_.errors import error_reply

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from cloudpilot.service.lambda_.operations import Call

LIFE = 600
"""Seconds that an address opens."""


def location(call: Call, digest: str) -> str:
    """The address of an archive."""
    until = int(time.time()) + LIFE
    token = call.state.access.token(f"archive:{digest}:{until}")
    return f"{call.request.url.scheme}://{call.request.url.netloc}/lambda-archives/{digest}.zip?until={until}&token={token}"


async def _download(request: Request) -> Response:
    digest, until = request.path_params["digest"], request.query_params.get("until", "")
    token = request.app.state.access.token(f"archive:{digest}:{until}")
    # Compared as bytes: the token may be anything.
    if not hmac.compare_digest(token.encode(), request.query_params.get("token", "").encode()):
        return error_reply(FunctionError("AccessDeniedException", "The address is not one that GetFunction or GetLayerVersion answered"))
    if not until.isdigit() or int(until) < time.time():
        return error_reply(FunctionError("AccessDeniedException", "The address has expired: ask for it again"))
    place = request.app.state.registry.codes.archive(digest)
    if not re.fullmatch("[0-9a-f]{64}", digest) or not await anyio.to_thread.run_sync(os.path.exists, place):
        return error_reply(missing("The archive is not there any more"))
    return FileResponse(place, media_type="application/zip")


def routes() -> list[Route]:
    """The operations' routes."""
    return [Route("/lambda-archives/{digest}.zip", _download, methods=["GET"])]
