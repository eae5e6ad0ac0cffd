"""Calls that nobody waits for: in the store before they are accepted, tried again when they fail, and given up in the end."""

from __future__ import annotations

import asyncio
import base64
import logging
import uuid
from typing import TYPE_CHECKING, Any

from cloudpilot.functions.errors import FunctionError

if TYPE_CHECKING:
    from cloudpilot.functions.pools import Pools
    from cloudpilot.functions.records import Function
    from cloudpilot.functions.registry import Registry

RETRY_PAUSES = (1.0, 2.0)
"""Seconds before an asynchronous call that failed is tried again."""

log = logging.getLogger("cloudpilot.functions")


class Events:
    """The calls that nobody waits for."""

    def __init__(self, registry: Registry, pools: Pools) -> None:
        self._registry = registry
        self._store = registry.store
        self._pools = pools
        self._tasks: set[asyncio.Task[Any]] = set()
        for entry in self._store.range("events/"):
            # Accepted by an earlier service, and not known to be done.
            self._spawn(self._deliver(entry.key, entry.value))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stops; what is not done is done by the next service."""
        for task in list(self._tasks):
            task.cancel()

    def accept(self, function: Function, payload: bytes, key_id: str) -> str:
        """Takes a call; it is done even if the service dies meanwhile. Answers its number."""
        number = str(uuid.uuid4())
        value = {
            "function": function.name,
            "project": function.project,
            "version": function.version,
            "payload": base64.b64encode(payload).decode(),
            "key": key_id,
        }
        self._store.transact({f"events/{number}": value})
        self._spawn(self._deliver(f"events/{number}", value))
        return number

    async def _deliver(self, key: str, value: dict[str, Any]) -> None:
        for pause in (*RETRY_PAUSES, None):
            try:
                function = self._registry.get(value["project"], value["function"], value.get("version", "$LATEST"))
                outcome = await self._pools.invoke(function, base64.b64decode(value["payload"]))
                error, answer = outcome.error, outcome.answer
            except FunctionError as refused:
                if refused.kind == "ResourceNotFoundException":
                    break
                error, answer = refused.kind, refused.message.encode()
            if error is None:
                break
            log.warning("asynchronous call failed", extra={"function": value["function"], "error": answer[:1000].decode(errors="replace")})
            if pause is not None:
                await asyncio.sleep(pause)
        self._store.transact({key: None})
