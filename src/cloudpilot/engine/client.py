"""A client of one sandbox's control socket: sends requests, settles their answers, hands events on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from cloudpilot.engine import packet, paths
from cloudpilot.engine.pending import Pending
from cloudpilot.engine.reactor import READABLE, reactor
from cloudpilot.errors import LimitException, SandboxEndedException, SandboxException, from_failure

REQUEST_TIMEOUT = 60.0
"""Seconds that a request may take where nothing else is said, as with E2B."""
LONGEST_ANSWER = 64 << 20
"""Bytes of an answer that does not fit into a packet, like a long listing. A hostile guest may make listings as long as it likes."""
NONSENSE = "The sandbox's answer makes no sense"
_SEND_PATIENCE = 10.0

Event = dict[str, Any]


class Client:
    """A connection to a running sandbox. `on_event` gets its events, `on_close` is called once when it is gone, both in the reactor."""

    def __init__(self, sandbox_id: str, on_event: Callable[[Event], None], on_close: Callable[[], None]) -> None:
        self._socket = connect(sandbox_id)
        self._socket.settimeout(_SEND_PATIENCE)
        self._on_event = on_event
        self._on_close = on_close
        self._numbers = itertools.count(1)
        self._pending: dict[int, tuple[Pending[Any], Callable[[Any], None] | None]] = {}
        self._lock = threading.Lock()
        self._ended: SandboxException | None = None
        self._closed = False
        reactor().watch(self._socket.fileno(), READABLE, self._readable)

    def call(
        self,
        method: str,
        params: dict[str, Any],
        descriptors: list[int] | None = None,
        timeout: float | None = REQUEST_TIMEOUT,
        on_answer: Callable[[Any], None] | None = None,
    ) -> Pending[Any]:
        """Sends a request. `on_answer` gets its result in the reactor, before any later event."""
        number = next(self._numbers)
        text = packet.encode({"id": number, "method": method, "params": params})
        pending: Pending[Any] = Pending()
        with self._lock:
            if self._ended is not None:
                pending.fail(self._ended)
                return pending
            self._pending[number] = pending, on_answer
            try:
                packet.send(self._socket, text, descriptors or [])
            except OSError:
                # Why the sandbox hung up is told by its end, which `fail_all` follows.
                pass
        pending.then(lambda: void(self._pending.pop(number, None)))
        reactor().limit(pending, timeout, f"The request `{method}`")
        return pending

    async def ask_at_length(self, method: str, params: dict[str, Any], timeout: float | None = REQUEST_TIMEOUT) -> Any:
        """Sends a request whose answer may be longer than a packet."""
        descriptor = os.memfd_create("cloudpilot-answer", os.MFD_CLOEXEC)
        try:
            answer = await self.call(method, params, [descriptor], timeout)
            if not (isinstance(answer, dict) and "in_descriptor" in answer):
                return answer
            if answer["in_descriptor"] > LONGEST_ANSWER:
                raise LimitException(f"The answer is longer than {LONGEST_ANSWER >> 20} MiB", "ask for less at a time")
            return json.loads(os.pread(descriptor, LONGEST_ANSWER, 0))
        except (ValueError, TypeError):
            raise SandboxException(NONSENSE) from None
        finally:
            os.close(descriptor)

    def _readable(self) -> None:
        message = packet.receive(self._socket)
        try:
            if message is not None:
                (self._on_event if "event" in message else self._answer)(message)
                return
        except (KeyError, TypeError, ValueError):
            pass  # The kernel process is not trusted to make sense, and one that does not is hung up on.
        self.close()
        self._on_close()

    def _answer(self, message: Event) -> None:
        pending, on_answer = self._pending.get(message.get("id"), (None, None))  # type: ignore[arg-type]
        if pending is None:
            return
        error, result = message.get("error"), message.get("result")
        try:
            if error is not None:
                pending.fail(from_failure(error))
                return
            if on_answer is not None and not pending.settled:
                on_answer(result)
        except (AttributeError, KeyError, TypeError, ValueError):
            pending.fail(SandboxException(NONSENSE))
        else:
            pending.resolve(result)

    def fail_all(self, error: SandboxException) -> None:
        """Fails what is pending and whatever will be asked: the sandbox is gone."""
        with self._lock:
            self._ended = error
            pending = list(self._pending.values())
        for each, _ in pending:
            each.fail(error)

    def close(self) -> None:
        """Hangs up."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        reactor().unwatch(self._socket.fileno())
        self._socket.close()


@contextlib.contextmanager
def sense() -> Iterator[None]:
    """Takes an answer apart, which may come from a kernel process that was broken into."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SandboxException(NONSENSE) from None


def void(_: object) -> None:
    """Takes an answer of which nobody wants to know."""


def connect(sandbox_id: str) -> socket.socket:
    """A connection to a sandbox's control socket."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_SEND_PATIENCE)
        connection.connect(paths.control_socket(sandbox_id))
    except (FileNotFoundError, ConnectionError):
        connection.close()
        raise SandboxEndedException(f"The sandbox `{sandbox_id}` does not run") from None
    except OSError as error:
        connection.close()
        raise SandboxException(f"Cannot reach the sandbox `{sandbox_id}`: {error.strerror or error}") from None
    return connection
