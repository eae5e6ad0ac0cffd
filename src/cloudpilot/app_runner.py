"""Runs where an `App`'s functions run: takes a call, calls the function, answers with what it answers. It goes along with their code."""

from __future__ import annotations

import base64
import importlib
import io
import json
import pickle
import sys
import traceback
from typing import Any


class _Reader(pickle.Unpickler):
    """Reads arguments; what was in the main program is in a module of its own here."""

    def __init__(self, data: bytes, module: str) -> None:
        super().__init__(io.BytesIO(data))
        self._module = module

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(self._module if module == "__main__" else module, name)


def handler(event: dict[str, str], _context: object = None) -> dict[str, Any]:
    """Serves a call."""
    try:
        function = getattr(importlib.import_module(event["module"]), event["function"])
        args, kwargs = _Reader(base64.b64decode(event["call"]), event["module"]).load()
        answer = getattr(function, "local", function)(*args, **kwargs)
        return {"value": base64.b64encode(pickle.dumps(answer, protocol=4)).decode()}
    except Exception as error:
        return {"error": {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}}


def main() -> None:
    """Serves the call in a file, and answers into another."""
    with open(sys.argv[1], encoding="utf-8") as file:
        event = json.load(file)
    answer = handler(event)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
