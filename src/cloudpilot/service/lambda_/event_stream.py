"""The framing of streamed answers, `application/vnd.amazon.eventstream`: lengths, headers and payload between two checksums."""

from __future__ import annotations

import json
import struct
import zlib

CONTENT_TYPE = "application/vnd.amazon.eventstream"
LARGEST_PIECE = 1 << 20
"""Bytes of one message's payload: clients refuse messages of more than 16 MiB, and keep each of them in memory."""
_STRING = 7
"""The type of a header's value."""


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message."""
    head = b"".join(
        struct.pack(f"!B{len(name)}sBH", len(name), name.encode(), _STRING, len(value)) + value.encode() for name, value in headers.items()
    )
    # Two lengths and two checksums of four bytes each; the first checksum is that of the lengths.
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    body = prelude + head + payload
    return body + struct.pack("!I", zlib.crc32(body))


def pieces(data: bytes) -> list[bytes]:
    """Messages that carry a part of an answer."""
    headers = {":event-type": "PayloadChunk", ":content-type": "application/octet-stream", ":message-type": "event"}
    return [message(headers, data[start : start + LARGEST_PIECE]) for start in range(0, len(data), LARGEST_PIECE)]


def end(error: str | None, details: str | None, log: str | None) -> bytes:
    """The last message."""
    headers = {":event-type": "InvokeComplete", ":content-type": "application/json", ":message-type": "event"}
    value = {name: each for name, each in (("ErrorCode", error), ("ErrorDetails", details), ("LogResult", log)) if each is not None}
    return message(headers, json.dumps(value).encode())
