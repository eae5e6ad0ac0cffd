"""What the service is told when it starts, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from cloudpilot.engine import paths

DEFAULT_PORT = 8200
LARGEST_BODY = 1 << 20
"""Bytes of a request that is not an upload: the longest command line fits many times."""
DRAIN_PATIENCE = 10
"""Seconds that requests under way get to finish after SIGTERM."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service is told.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 is any that is free.
        data: Directory of the store and of uploads under way.
        certificate: File of the TLS certificate chain, if it shall speak TLS.
        private_key: File of the certificate's key.
        domain: Name under which ports of sandboxes are reached, as `PORT-SANDBOX.DOMAIN`.
        function_memory: Bytes that instances of functions may use in all; none is what the host has, less a reserve.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    data: str = ""
    certificate: str | None = None
    private_key: str | None = None
    domain: str | None = None
    function_memory: int | None = None


def default_data() -> str:
    """Where the service keeps what it remembers, unless told otherwise."""
    return paths.data_dir()
