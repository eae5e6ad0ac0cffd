"""Starting and ending the service: what must be right before it listens, the first key, signals."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import uvicorn

from cloudpilot.engine import host, paths
from cloudpilot.errors import InvalidArgumentException, SandboxException
from cloudpilot.hosting.access import Access
from cloudpilot.service import app, proxy
from cloudpilot.service.http import BrokenOffError
from cloudpilot.service.settings import DRAIN_PATIENCE
from cloudpilot.store import StoreError
from cloudpilot.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from cloudpilot.service.settings import Settings

_BACKLOG = 2048

log = logging.getLogger("cloudpilot.server")


class _Server(uvicorn.Server):
    """A server whose orderly end is a success rather than a death by the signal that asked for it, and that says when it is ready."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to serve."""
        await super().startup(sockets)
        if self.started:
            _tell_systemd("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets requests under way finish."""
        log.info("ending")
        _tell_systemd("STOPPING=1")
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends the service on SIGTERM and Ctrl-C; a second one does not wait for requests under way."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(settings: Settings) -> socket.socket:
    """The socket to listen on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named; else each answer waits 40 ms for the client's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        hint = "stop what listens there, or choose another with `--port`" if taken else "choose another `--host` or `--port`"
        raise SandboxException(f"Cannot listen on {settings.host}, port {settings.port}: {reason}", hint) from None
    return listener


def _check_certificate(settings: Settings) -> None:
    import ssl

    if (settings.certificate is None) != (settings.private_key is None):
        raise InvalidArgumentException("TLS needs both `--certificate` and `--private-key`", "give both or none")
    if settings.certificate is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.certificate, settings.private_key)
        except (OSError, ssl.SSLError) as error:
            hint = "give files in PEM form that belong together"
            raise InvalidArgumentException(f"The certificate cannot be used: {error}", hint) from None


def _open(settings: Settings) -> SqliteStore:
    try:
        return SqliteStore(settings.data)
    except StoreError as error:
        raise SandboxException(error.message, error.hint) from None


def check(settings: Settings) -> int:
    """Tries everything that a start needs, and starts nothing. Answers the exit status."""
    problems = [each for each in host.checks() if each.needed and not each.ok]
    for problem in problems:
        print(f"no   {problem.name}: {problem.reason}" + (f" ({problem.remedy})" if problem.remedy else ""))
    tries: dict[str, Callable[[], object]] = {
        "binary": paths.binary,
        "certificate": lambda: _check_certificate(settings),
        "store": lambda: _open(settings).close(),
        "port": lambda: listen(settings).close(),
    }
    for name, attempt in tries.items():
        try:
            attempt()
            print(f"ok   {name}")
        except SandboxException as error:
            problems.append(host.Check(name, ok=False, needed=True, reason=error.message, remedy=error.hint))
            print(f"no   {name}: {error}")
    return 1 if problems else 0


def serve(settings: Settings) -> int:
    """Serves until it is told to end. Answers the exit status."""
    paths.binary()
    _check_certificate(settings)
    store = _open(settings)
    try:
        listener = listen(settings)
        port = listener.getsockname()[1]
        settings = settings.__class__(**{**{name: getattr(settings, name) for name in settings.__slots__}, "port": port})
        uploads = os.path.join(settings.data, "uploads")
        os.makedirs(uploads, mode=0o700, exist_ok=True)
        # Uploads can be large; where temporary files go otherwise is often memory.
        tempfile.tempdir = uploads
        _log_to_stderr()
        scheme = "http" if settings.certificate is None else "https"
        key = Access(store).first_key()
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        print(f"Listening on {scheme}://{shown}:{port}", flush=True)
        if key is not None:
            print(f"First API key, shown this once: {key}", flush=True)
        config = uvicorn.Config(
            app.make(settings, store),
            http="httptools",
            ws=proxy.Tunnel,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_PATIENCE,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.private_key,
        )
        server = _Server(config)
        server.run(sockets=[listener])
        return 0 if server.started else 1
    except StoreError as error:
        raise SandboxException(error.message, error.hint) from None
    finally:
        store.close()


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(app.JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Its news of starting and ending would say ours again, for a terminal.
    server_log = logging.getLogger("uvicorn.error")
    server_log.setLevel(logging.WARNING)
    # To break an answer off is the only way to tell that it is not whole; the server takes that for a fault.
    server_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], BrokenOffError)))


def _tell_systemd(state: str) -> None:
    """Tells the service manager what we do, where there is one that asks for it: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            try:
                manager.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
            except OSError as error:
                log.warning("the service manager cannot be told", extra={"state": state, "error": str(error)})
