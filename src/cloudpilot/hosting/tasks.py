"""Long operations: tasks with progress and events. The store has them, so that a client that hangs up, or a service that dies, loses none.

What a task does runs in this service; one that a restart cut off is marked as failed, with that reason.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from cloudpilot.hosting import failures
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.store import Store, StoreError

MOST_TASKS = 1000
"""Tasks that are remembered; those that ended first are forgotten first."""
MOST_EVENTS = 5000
"""Events of a task that are remembered: a build that prints without end must not fill the disk. What comes later is not kept."""
LONGEST_MESSAGE = 4096
"""Characters of one event."""
_WRITE_PAUSE = 0.1
"""Seconds between writes of events: each is a transaction that waits for the disk."""
RUNNING, SUCCEEDED, FAILED, CANCELLED = "running", "succeeded", "failed", "cancelled"
_INTERRUPTED = {"code": "interrupted", "message": "The service ended before this was done", "field": None, "remedy": "start it again"}

log = logging.getLogger("cloudpilot.tasks")


class Task:
    """A long operation, under way or over.

    Attributes:
        id: Its unique name.
        kind: What it does, like `template.build`.
        target: What it does that to.
        project: Whose it is.
        state: `running`, `succeeded`, `failed` or `cancelled`.
        progress: Which part of it is done, from 0 to 1.
        result: What came of it.
        error: Why it failed: code, message, field and remedy.
    """

    def __init__(self, task_id: str, value: dict[str, Any]) -> None:
        self.id = task_id
        self.kind: str = value["kind"]
        self.target: str = value["target"]
        self.project: str = value["project"]
        self.created: float = value["created"]
        self.state: str = value["state"]
        self.progress: float = value["progress"]
        self.ended: float | None = value["ended"]
        self.result: dict[str, Any] | None = value["result"]
        self.error: dict[str, Any] | None = value["error"]
        self.events: int = value["events"]

    def as_value(self) -> dict[str, Any]:
        """What the store keeps, and everybody may know."""
        names = ("kind", "target", "project", "created", "state", "progress", "ended", "result", "error", "events")
        return {name: getattr(self, name) for name in names}


class Progress:
    """What a task tells while it runs."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.waiting: list[dict[str, Any]] = []
        self.news = asyncio.Event()

    def note(self, message: str, level: str = "info", step: str | None = None) -> None:
        """Tells something, in one line."""
        if self.task.events + len(self.waiting) < MOST_EVENTS:
            self.waiting.append({"time": time.time(), "level": level, "message": message[:LONGEST_MESSAGE], "step": step})
            self.news.set()

    def done(self, part: float) -> None:
        """Tells how much of it is done."""
        self.task.progress = min(1.0, max(self.task.progress, part))
        self.news.set()


Work = Callable[[Progress], Awaitable[dict[str, Any]]]


class Tasks:
    """All tasks of the service."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[str, tuple[Task, asyncio.Task[None]]] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._closing = False
        self._mark_interrupted()

    def _mark_interrupted(self) -> None:
        for entry in self._store.range("tasks/"):
            if entry.value["state"] == RUNNING:
                error = {
                    "code": "interrupted",
                    "message": "The service ended before this was done",
                    "field": None,
                    "remedy": "start it again",
                }
                self._store.transact({entry.key: {**entry.value, "state": FAILED, "ended": time.time(), "error": error}})

    # Looking.

    def get(self, task_id: str, project: str) -> Task:
        """One task; those of other projects do not exist."""
        running = self._running.get(task_id)
        if running is not None:
            task = running[0]
        else:
            entry = self._store.get(f"tasks/{task_id}")
            task = Task(task_id, entry.value) if entry is not None else None  # type: ignore[assignment]
        if task is None or task.project != project:
            raise Failure(Kind.NOT_FOUND, f"There is no task `{task_id}`", remedy="GET /v1/tasks lists them")
        return task

    def of(self, project: str) -> list[Task]:
        """A project's tasks, the newest first."""
        found = [Task(entry.key.removeprefix("tasks/"), entry.value) for entry in self._store.range("tasks/")]
        found = [self._running[task.id][0] if task.id in self._running else task for task in found if task.project == project]
        return sorted(found, key=lambda task: (task.created, task.id), reverse=True)

    def events(self, task_id: str, after: int = 0, limit: int = MOST_EVENTS) -> list[dict[str, Any]]:
        """Events of a task that come after that number."""
        found = self._store.range(f"task-events/{task_id}/", after=f"task-events/{task_id}/{after:08d}", limit=limit)
        return [{"id": int(entry.key.rpartition("/")[2]), **entry.value} for entry in found]

    async def follow(self, task: Task, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Events as they come, until the task is over."""
        while True:
            changed = self._changed.get(task.id)
            if changed is not None:
                changed.clear()
            over = task.id not in self._running
            for event in self.events(task.id, after):
                after = event["id"]
                yield event
            if over or changed is None:
                return
            await changed.wait()

    # Running.

    def start(self, project: str, kind: str, target: str, work: Work, task_id: str | None = None) -> Task:
        """Starts a task."""
        value = {
            "kind": kind, "target": target, "project": project, "created": time.time(), "state": RUNNING, "progress": 0.0,
            "ended": None, "result": None, "error": None, "events": 0,
        }  # fmt: skip
        task = Task(task_id or str(uuid.uuid4()), value)
        self._store.transact({f"tasks/{task.id}": task.as_value()})
        self._changed[task.id] = asyncio.Event()
        self._running[task.id] = task, asyncio.get_running_loop().create_task(self._run(task, work))
        self._forget_oldest()
        return task

    async def _run(self, task: Task, work: Work) -> None:
        progress = Progress(task)
        writer = asyncio.get_running_loop().create_task(self._write_on(progress))
        try:
            task.result = await work(progress)
            task.state, task.progress = SUCCEEDED, 1.0
        except asyncio.CancelledError:
            task.state, task.error = (FAILED, _INTERRUPTED) if self._closing else (CANCELLED, None)
            progress.note("interrupted" if self._closing else "cancelled", "warning")
        except Exception as error:
            task.state = FAILED
            failure = failures.of(error)
            if failure is None:
                log.exception("fault", extra={"task": task.id})
                failure = Failure(Kind.INTERNAL, "The service failed", remedy="its log says why")
            task.error = {"code": failure.kind.code, "message": failure.message, "field": failure.field, "remedy": failure.remedy}
            progress.note(failure.sentence(), "error")
        finally:
            writer.cancel()
            task.ended = time.time()
            self._write(progress)
            self._running.pop(task.id, None)
            # Those who follow it find that it is over.
            self._changed.pop(task.id).set()
            log.info("task ended", extra={"task": task.id, "kind": task.kind, "target": task.target, "state": task.state})

    async def _write_on(self, progress: Progress) -> None:
        while True:
            await progress.news.wait()
            progress.news.clear()
            self._write(progress)
            await asyncio.sleep(_WRITE_PAUSE)

    def _write(self, progress: Progress) -> None:
        task, waiting = progress.task, progress.waiting
        progress.waiting = []
        writes: dict[str, Any] = {}
        for event in waiting:
            task.events += 1
            writes[f"task-events/{task.id}/{task.events:08d}"] = event
        writes[f"tasks/{task.id}"] = task.as_value()
        try:
            self._store.transact(writes)
        except StoreError as error:
            # The task goes on; at the next start it counts as cut off.
            log.warning("a task could not be written down", extra={"task": task.id, "error": str(error)})
        self._changed[task.id].set()

    async def cancel(self, task: Task) -> None:
        """Stops a task, and waits until it has stopped."""
        running = self._running.get(task.id)
        if running is None:
            raise Failure(Kind.CONFLICT, f"The task `{task.id}` is over", remedy="look at its `state`")
        running[1].cancel()
        await asyncio.wait([running[1]])

    async def close(self) -> None:
        """Stops all tasks, since the service ends."""
        self._closing = True
        for _, running in list(self._running.values()):
            running.cancel()
        if self._running:
            await asyncio.wait([running for _, running in self._running.values()])

    def _forget_oldest(self) -> None:
        entries = self._store.range("tasks/")
        over = sorted((entry for entry in entries if entry.value["state"] != RUNNING), key=lambda entry: entry.value["created"])
        for entry in over[: max(0, len(entries) - MOST_TASKS)]:
            task_id = entry.key.removeprefix("tasks/")
            events = self._store.range(f"task-events/{task_id}/")
            self._store.transact({entry.key: None, **{each.key: None for each in events}})
