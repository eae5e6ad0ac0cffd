"""What comes back from a function that ran elsewhere: plain data and failures, read without running anything that is in them."""

from __future__ import annotations

import builtins
import datetime as dt
import decimal
import fractions
import io
import pathlib
import pickle
import uuid
from collections import Counter, OrderedDict, deque
from typing import Any

from cloudpilot.errors import FunctionException, InvalidArgumentException, TimeoutException


def _bytearray(data: bytes = b"") -> bytearray:
    # Of a number it would be as long as that.
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("an array of bytes is made of bytes only")
    return bytearray(data)


_TAKEN: dict[tuple[str, str], Any] = {
    **{("builtins", each.__name__): each for each in (set, frozenset, complex, slice, range)},
    ("builtins", "bytearray"): _bytearray,
    **{("datetime", name): getattr(dt, name) for name in ("date", "datetime", "time", "timedelta", "timezone")},
    ("decimal", "Decimal"): decimal.Decimal,
    ("fractions", "Fraction"): fractions.Fraction,
    ("uuid", "UUID"): uuid.UUID,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
    ("collections", "deque"): deque,
    ("pathlib", "PurePosixPath"): pathlib.PurePosixPath,
    ("pathlib", "PosixPath"): pathlib.PurePosixPath,
}
"""Classes that hold data and do nothing. `pickle` could call any function otherwise, and what it reads comes from behind a wall."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _TAKEN.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"`{module}.{name}` is not plain data")
        return found


def loads(data: bytes) -> Any:
    """A value that was pickled elsewhere, if it is plain data."""
    try:
        return _Reader(io.BytesIO(data)).load()
    except Exception as error:
        hint = "let the function answer with numbers, text, bytes, dates, and lists or dictionaries of them"
        raise InvalidArgumentException(f"What the function answered cannot be taken here: {error}", hint) from None


def failure_of(told: dict[str, Any]) -> Exception:
    """The exception for what a function raised: of the same class, if that is one of Python's own."""
    kind, message, trace = (str(told.get(name, "")) for name in ("type", "message", "traceback"))
    if kind == "Sandbox.Timedout":
        return TimeoutException(message)
    found = getattr(builtins, kind, None)
    # Those that are no plain failures would do something here: end the program, stop an iteration.
    plain = isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, StopIteration | StopAsyncIteration)
    try:
        error: Exception = found(message) if plain and found is not None else FunctionException(kind, message)
    except TypeError:
        error = FunctionException(kind, message)
    if trace:
        error.add_note(f"There:\n{trace}")
    return error
