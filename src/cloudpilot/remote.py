"""A service that runs elsewhere, as `pilot function` and `App` talk to it: our own API over HTTP, with the standard library only."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
import urllib.parse
from typing import Any

from cloudpilot import errors

DEFAULT_URL = "http://127.0.0.1:8200"
URL_VARIABLES = ("CLOUDPILOT_URL", "E2B_API_URL")
KEY_VARIABLES = ("CLOUDPILOT_API_KEY", "E2B_API_KEY")
REQUEST_TIMEOUT = 60.0
"""Seconds that an answer may take, beyond what the request itself asks for."""
_IDLE = 3.0
"""Seconds after which a connection is not used again: the service closes idle ones after 5."""
_KINDS: dict[str, type[errors.SandboxException]] = {
    "invalid_argument": errors.InvalidArgumentException,
    "not_found": errors.NotFoundException,
    "already_exists": errors.FileExistsException,
    "unauthenticated": errors.PermissionDeniedException,
    "permission_denied": errors.PermissionDeniedException,
    "too_large": errors.LimitException,
    "resource_exhausted": errors.LimitException,
    "deadline_exceeded": errors.TimeoutException,
    "no_space": errors.NotEnoughSpaceException,
    "unimplemented": errors.NotSupportedException,
}


def configured() -> bool:
    """Whether the environment names a service or a key for one."""
    return any(os.environ.get(name) for name in (*URL_VARIABLES, *KEY_VARIABLES))


def _from_environment(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


class Service:
    """A service, and a key for it.

    Args:
        url: Where it is; by default what `CLOUDPILOT_URL` says, or `E2B_API_URL`, or this host.
        key: An API key of its; by default what `CLOUDPILOT_API_KEY` says, or `E2B_API_KEY`.
    """

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        self.url = (url or _from_environment(URL_VARIABLES) or DEFAULT_URL).rstrip("/")
        found = key or _from_environment(KEY_VARIABLES)
        if not found:
            hint = "set CLOUDPILOT_API_KEY: `pilot serve` prints the first key, an admin makes others"
            raise errors.InvalidArgumentException("There is no API key for the service", hint)
        self._key = found
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.InvalidArgumentException(f"`{self.url}` is not the URL of a service", "write it like `http://127.0.0.1:8200`")
        self._parts = parts
        self._local = threading.local()

    def request(self, method: str, path: str, body: Any = None, *, data: bytes | None = None, seconds: float = 0.0) -> Any:
        """Sends a request; answers what came in JSON.

        Args:
            method: HTTP's word for it.
            path: Where.
            body: What to send as JSON.
            data: What to send as it is.
            seconds: What the request itself may take.
        """
        if body is not None:
            data = json.dumps(body).encode()
        connection = self._connection(seconds + REQUEST_TIMEOUT)
        headers = {"X-API-Key": self._key, "Content-Type": "application/json"}
        try:
            connection.request(method, self._parts.path + path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        except TimeoutError:
            self._forget(connection)
            raise errors.TimeoutException(f"The service at {self.url} did not answer in time") from None
        except (OSError, http.client.HTTPException) as error:
            self._forget(connection)
            hint = "start it with `pilot serve`, or set CLOUDPILOT_URL"
            raise errors.SandboxException(f"The service at {self.url} cannot be reached: {error}", hint) from None
        self._local.used = time.monotonic()
        if answer.status >= 400:
            raise _refusal(answer.status, text)
        return json.loads(text) if text else None

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None and time.monotonic() - self._local.used < _IDLE:
            connection.timeout = timeout
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            return connection
        if connection is not None:
            connection.close()
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        self._local.connection, self._local.used = connection, time.monotonic()
        return connection

    def _forget(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        self._local.connection = None


def _refusal(status: int, text: bytes) -> errors.SandboxException:
    try:
        error = json.loads(text)["error"]
        message = error["message"] if error.get("field") is None else f"{error['field']}: {error['message']}"
        return _KINDS.get(error["code"], errors.SandboxException)(message, error.get("remedy"))
    except (ValueError, TypeError, KeyError):
        return errors.SandboxException(f"The service answered with the status {status}", "is it Cloudpilot that runs there?")
