"""Packets of the control protocol: one `SOCK_SEQPACKET` packet is one JSON message, with descriptors where a request has some."""

from __future__ import annotations

import array
import json
import socket
from typing import Any

from cloudpilot.errors import InvalidArgumentException

LONGEST_MESSAGE = 128 << 10
"""Longest message that a sandbox takes, and that it sends."""


def encode(message: dict[str, Any]) -> bytes:
    """The message as it travels."""
    try:
        text = json.dumps(message).encode()
    except UnicodeEncodeError:
        raise InvalidArgumentException("A command, a path or a variable is not valid UTF-8") from None
    if len(text) > LONGEST_MESSAGE:
        raise InvalidArgumentException(
            f"A request has at most {LONGEST_MESSAGE >> 10} KiB, this one {len(text) >> 10}",
            "write long commands and inputs into files first",
        )
    return text


def send(connection: socket.socket, text: bytes, descriptors: list[int]) -> None:
    """Sends a message and copies of the descriptors."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([text], rights, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Receives a message; none when the peer has hung up. What is not a message is as good as hanging up."""
    try:
        text = connection.recv(LONGEST_MESSAGE)
        message = json.loads(text) if text else None
    except (ConnectionError, ValueError):
        return None
    return message if isinstance(message, dict) else None
