"""The sandbox wall: starts sandboxes that live as long as this process wants them, and reports their ends."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from cloudpilot.engine import config, packet, paths
from cloudpilot.engine.pending import Pending
from cloudpilot.engine.reactor import READABLE, Timer, reactor
from cloudpilot.errors import SandboxEndedException, SandboxException, TimeoutException, from_failure

START_TIMEOUT = 30.0
"""Seconds that a start may take; it takes milliseconds unless the host is overwhelmed."""
END_TIMEOUT = 10.0
"""Seconds that an end may take: freeing a large guest's memory is what takes longest."""
_REAP_PAUSE = 0.05


class Life:
    """A sandbox that this process started, and that ends with it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.id: str = settings["id"]
        self.ready: Pending[dict[str, Any]] = Pending()
        self.gone: Pending[SandboxException] = Pending()
        self._lifeline, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._end: SandboxException | None = None
        self._timer: Timer | None = None
        descriptor = -1
        try:
            descriptor = config.as_descriptor({**settings, "lifeline_fd": theirs.fileno()})
            self._pid = _spawn(descriptor, theirs.fileno())
        except BaseException:
            self._lifeline.close()
            raise
        finally:
            theirs.close()
            if descriptor >= 0:
                os.close(descriptor)
        _living[self.id] = self
        self._lifeline.settimeout(0)
        reactor().watch(self._lifeline.fileno(), READABLE, self._hear)
        reactor().limit(self.ready, START_TIMEOUT, "The start of the sandbox")  # type: ignore[arg-type]

    def _hear(self) -> None:
        try:
            news = packet.receive(self._lifeline)
        except BlockingIOError:
            return
        if news is None:
            self._finished()
        elif news.get("event") == "ready":
            self.ready.resolve(news)
        elif news.get("event") == "failed":
            self._end = from_failure(news)
            self.ready.fail(self._end)
        elif news.get("event") == "ended" and self._end is None:
            self._end = _ended(self.id, news)

    def _finished(self) -> None:
        error = self._end or SandboxEndedException(f"The sandbox `{self.id}` was killed by somebody on the host")
        self.let_go()
        self.ready.fail(error)
        self.gone.resolve(error)
        _reap(self._pid)

    def let_go(self) -> None:
        """Hangs up the lifeline: the sandbox ends if it has not yet."""
        _living.pop(self.id, None)
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._lifeline.fileno() >= 0:
                reactor().unwatch(self._lifeline.fileno())
                self._lifeline.close()

    def end(self, error: SandboxException) -> None:
        """Ends the sandbox. `error` is what those get who use it nevertheless; `gone` tells when nothing of it is left."""
        with self._lock:
            if self._end is None:
                self._end = error
            if self._lifeline.fileno() >= 0:
                # Its news of the end, and then the host's of the process's end, still arrive.
                self._lifeline.shutdown(socket.SHUT_WR)

    def hand_out(self, *, detach: bool, timeout_ms: int | None) -> None:
        """Puts a sandbox to use that was started in advance: how long it may live from now, and whether it outlives this process."""
        word = packet.encode({"detach": detach, "timeout_ms": timeout_ms})
        with self._lock:
            packet.send(self._lifeline, word, [])

    def end_after(self, seconds: float | None) -> None:
        """Ends the sandbox when that time has passed from now; replaces an earlier deadline. None is no deadline."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if seconds is not None and self._lifeline.fileno() >= 0:
                error = TimeoutException(f"The time of the sandbox `{self.id}` was up", "give a longer `timeout`, or use `set_timeout`")
                self._timer = reactor().after(seconds, lambda: self.end(error))


_living: dict[str, Life] = {}


def living(sandbox_id: str) -> Life | None:
    """The sandbox of that id, if this process started it and it has not ended."""
    return _living.get(sandbox_id)


def _spawn(config_descriptor: int, lifeline: int) -> int:
    binary = paths.binary()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        # Onto themselves: that makes them, and no others, survive.
        (os.POSIX_SPAWN_DUP2, config_descriptor, config_descriptor),
        (os.POSIX_SPAWN_DUP2, lifeline, lifeline),
    ]
    arguments = [paths.BINARY, "create", "--config-fd", str(config_descriptor)]
    # A session of its own: Ctrl-C in the terminal is for this process, which decides what it means.
    return os.posix_spawn(binary, arguments, os.environ, file_actions=actions, setsid=True)


def _ended(sandbox_id: str, news: dict[str, Any]) -> SandboxException:
    message = news.get("message")
    reasons: dict[Any, Callable[[], SandboxException]] = {
        "timeout": lambda: TimeoutException(f"The time of the sandbox `{sandbox_id}` was up"),
        "shutdown": lambda: SandboxEndedException(f"The sandbox `{sandbox_id}` was shut down"),
        "crashed": lambda: SandboxEndedException(f"The sandbox `{sandbox_id}` crashed: {message}"),
    }
    return reasons.get(news.get("reason"), lambda: SandboxEndedException(f"The sandbox `{sandbox_id}` has ended"))()


def _reap(pid: int) -> None:
    try:
        found, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # Somebody waits for all children of this process.
    if found == 0:
        reactor().after(_REAP_PAUSE, lambda: _reap(pid))


def _forget() -> None:
    # A forked child would keep sandboxes alive whose starter is gone.
    for life in list(_living.values()):
        life._lifeline.close()
    _living.clear()


os.register_at_fork(after_in_child=_forget)
