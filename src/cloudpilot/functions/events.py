"""Calls that nobody waits for: in the store before they are accepted, tried again when they fail, and given up in the end.

A call is one entry of the store until it is done, so that whatever ends the service, it is found again; it may then be made twice. What
follows from its end, a call of a destination, is written in the same transaction that removes it. Memory holds only where calls are and
when they are due, and only as many run at a time as their function has places.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import json
import logging
import time
import uuid
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudpilot.functions.call import Outcome
from cloudpilot.functions.errors import FunctionError
from cloudpilot.functions.records import LATEST
from cloudpilot.store import StoreError

if TYPE_CHECKING:
    from cloudpilot.functions.pools import Pools
    from cloudpilot.functions.records import Function
    from cloudpilot.functions.registry import Registry

RETRY_PAUSES = (1.0, 2.0)
"""Seconds before a call that failed is tried for the second and the third time."""
BUSY_PAUSES = (1.0, 300.0)
"""Seconds before a call that found no place is tried again: the first time, and at most; each pause is twice the one before."""
MOST_EVENTS = 10_000
"""Calls of one function that wait. The store has room for more, but whoever sends more than is ever done is to hear of it."""
MOST_DELIVERIES = 5
"""Calls of one function that are made at the same time: half of its instances, so that callers who wait find some, too."""
MOST_HOPS = 16
"""Calls that may follow from one another by destinations: functions that name each other would go on forever."""
PREFIX = "events/"

log = logging.getLogger("cloudpilot.functions")


class _Line:
    """Calls of one function that wait: when they are due, and their keys."""

    __slots__ = ("due", "running")

    def __init__(self) -> None:
        self.due: list[tuple[float, str]] = []
        self.running = 0


class Events:
    """The calls that nobody waits for."""

    def __init__(self, registry: Registry, pools: Pools) -> None:
        self._registry = registry
        self._store = registry.store
        self._pools = pools
        self._lines: OrderedDict[tuple[str, str], _Line] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        after: str | None = None
        # Accepted by an earlier service, and not known to be done. In pieces: each has its payload with it.
        while entries := self._store.range(PREFIX, after=after, limit=100):
            for entry in entries:
                self._line_up(entry.key, entry.value)
            after = entries[-1].key
        self._look()

    def close(self) -> None:
        """Stops; what is not done is done by the next service."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        for task in list(self._tasks):
            task.cancel()

    def waiting(self) -> int:
        """Calls that wait or are under way."""
        return sum(len(line.due) + line.running for line in self._lines.values())

    # Taking calls.

    def accept(self, function: Function, payload: bytes, key_id: str, qualifier: str | None = None) -> str:
        """Takes a call; it is done even if the service dies meanwhile. Answers its number."""
        line = self._lines.get((function.project, function.name))
        if line is not None and len(line.due) >= MOST_EVENTS:
            message = f"{MOST_EVENTS} asynchronous calls of `{function.name}` wait already"
            raise FunctionError("TooManyRequestsException", message, "FunctionInvocationRateLimitExceeded")
        key, value = _event(function.project, function.name, function.version, payload, key_id)
        if qualifier is not None:
            value["qualifier"] = qualifier
        self._store.transact({key: value})
        self._line_up(key, value)
        self._look()
        return str(value["id"])

    def _line_up(self, key: str, value: dict[str, Any]) -> None:
        name = str(value["project"]), str(value["function"])
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line()
        heapq.heappush(line.due, (float(value.get("due", 0.0)), key))

    # Making them.

    def _look(self) -> None:
        """Makes what is due, as far as there are places, and wakes up when more will be."""
        if self._closed:
            return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        now = time.time()
        soonest = float("inf")
        for name, line in list(self._lines.items()):
            while line.due and line.running < MOST_DELIVERIES and line.due[0][0] <= now:
                _, key = heapq.heappop(line.due)
                line.running += 1
                task = asyncio.get_running_loop().create_task(self._deliver(name, line, key))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if line.due and line.running < MOST_DELIVERIES:
                soonest = min(soonest, line.due[0][0])
            elif not line.due and not line.running:
                del self._lines[name]
        if soonest < float("inf"):
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, soonest - now), self._look)

    async def _deliver(self, name: tuple[str, str], line: _Line, key: str) -> None:
        again: dict[str, Any] | None = None
        try:
            entry = self._store.get(key)
            if entry is not None:
                again = await self._attempt(key, entry.value)
        except StoreError as error:
            log.warning("asynchronous call put off", extra={"function": name[1], "error": str(error)})
            again = _put_off(name)
        except Exception:
            log.exception("asynchronous call put off", extra={"function": name[1]})
            again = _put_off(name)
        finally:
            line.running -= 1
            if again is not None:
                self._lines.setdefault(name, line)
                self._line_up(key, again)
            self._look()

    async def _attempt(self, key: str, value: dict[str, Any]) -> dict[str, Any] | None:
        """Makes a call once. Answers what is in the store if it is to be made again."""
        try:
            function = self._registry.get(value["project"], value["function"], value.get("version", LATEST))
        except FunctionError:
            self._store.transact({key: None})  # The function is gone, and nobody can be told.
            return None
        config = self._registry.event_config(function, value.get("qualifier"))
        accepted, tries = float(value.get("accepted", 0.0)), int(value.get("tries", 0))
        if accepted and time.time() - accepted > config.most_age:
            self._finish(key, value, function, "EventAgeExceeded", None)
            return None
        busy = False
        try:
            outcome = await self._pools.invoke(function, base64.b64decode(value["payload"]), qualifier=value.get("qualifier"))
        except FunctionError as refused:
            # There was no place: that is not the function's failure, and counts as no try.
            busy = True
            outcome = Outcome(refused.kind, refused.message.encode())
        if outcome.error is None:
            self._finish(key, value, function, "Success", outcome)
            return None
        log.warning(
            "asynchronous call failed",
            extra={"function": function.name, "error": outcome.answer[:1000].decode(errors="replace"), "try": tries},
        )
        if busy:
            times = int(value.get("busy", 0))
            pause = min(BUSY_PAUSES[1], BUSY_PAUSES[0] * 2**times)
            again = {**value, "busy": times + 1, "due": time.time() + pause}
        elif tries >= config.retries:
            self._finish(key, value, function, "RetriesExhausted", outcome)
            return None
        else:
            again = {**value, "tries": tries + 1, "due": time.time() + RETRY_PAUSES[min(tries, len(RETRY_PAUSES) - 1)]}
        self._store.transact({key: again})
        return again

    def _finish(self, key: str, value: dict[str, Any], function: Function, condition: str, outcome: Outcome | None) -> None:
        """Removes a call that is done or given up, and in the same breath takes the calls that follow from that."""
        config = self._registry.event_config(function, value.get("qualifier"))
        record = json.dumps(_record(value, function, condition, outcome)).encode()
        wanted = [(config.on_success, record)] if condition == "Success" else [(config.on_failure, record)]
        if condition != "Success" and function.dead_letters is not None:
            wanted.append((function.dead_letters, base64.b64decode(value["payload"])))
        writes: dict[str, dict[str, Any] | None] = {key: None}
        hops = int(value.get("hops", 0)) + 1
        for arn, payload in wanted:
            if arn is None:
                continue
            if hops > MOST_HOPS:
                log.warning("asynchronous calls go round in a circle", extra={"function": function.name, "destination": arn})
                continue
            name, version = _target(arn)
            fresh, event = _event(function.project, name, version, payload, str(value.get("key", "")), hops)
            writes[fresh] = event
        self._store.transact(writes)
        for fresh, each in writes.items():
            if each is not None:
                self._line_up(fresh, each)


def _event(project: str, name: str, version: str, payload: bytes, key_id: str, hops: int = 0) -> tuple[str, dict[str, Any]]:
    """A new call, as the store keeps it, and its key there."""
    now = time.time()
    number = str(uuid.uuid4())
    value = {
        "id": number,
        "function": name,
        "project": project,
        "version": version,
        "payload": base64.b64encode(payload).decode(),
        "key": key_id,
        "accepted": now,
        "due": 0.0,
        "hops": hops,
    }
    return f"{PREFIX}{int(now * 1e6):020d}-{number}", value


def _put_off(name: tuple[str, str]) -> dict[str, Any]:
    """Where and when a call is tried again that the service could not make; the store has it as it was."""
    return {"project": name[0], "function": name[1], "due": time.time() + BUSY_PAUSES[0]}


def _target(arn: str) -> tuple[str, str]:
    """Name and version of the function that an ARN names."""
    parts = arn.split(":")
    return (parts[6], parts[7]) if len(parts) > 7 else (parts[6] if len(parts) > 6 else arn, LATEST)


def _record(value: dict[str, Any], function: Function, condition: str, outcome: Outcome | None) -> dict[str, Any]:
    """What a destination is called with, in Lambda's form."""
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "requestContext": {
            "requestId": value.get("id", ""),
            "functionArn": function.qualified_arn,
            "condition": condition,
            "approximateInvokeCount": int(value.get("tries", 0)) + (outcome is not None),
        },
        "requestPayload": _json(base64.b64decode(value["payload"])),
    }
    if outcome is not None:
        record["responseContext"] = {"statusCode": 200, "executedVersion": function.version}
        if outcome.error is not None:
            record["responseContext"]["functionError"] = outcome.error
        record["responsePayload"] = _json(outcome.answer)
    return record


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.decode(errors="replace")
