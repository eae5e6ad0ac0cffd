"""Functions: what the store knows of them, the instances that serve them, and the calls that wait."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
import uuid
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudpilot.errors import SandboxException
from cloudpilot.service.failures import Failure
from cloudpilot.service.lambda_.code import Codes
from cloudpilot.service.lambda_.errors import LambdaError
from cloudpilot.service.lambda_.instance import PORT, Call, Instance, problem
from cloudpilot.service.templates import Template

if TYPE_CHECKING:
    from cloudpilot.service.access import Caller
    from cloudpilot.service.sandboxes import Sandboxes
    from cloudpilot.store import Store

REGION = "local"
ACCOUNT = "000000000000"
MOST_INSTANCES = 10
"""Instances of one function at a time: each has the memory that the function asks for."""
MOST_WAITING = 1000
"""Calls of one function that wait for an instance; more are refused, as with Lambda's limit of concurrency."""
KEEP_ALIVE = 600.0
"""Seconds that an instance waits for its next call, as Lambda is said to have it."""
RETRY_PAUSES = (1.0, 2.0)
"""Seconds before an asynchronous call that failed is tried again."""
_INSTANCE_LIFE = 23 * 3600
_SWEEP_PAUSE = 5.0
_BOOTSTRAP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runtime")

log = logging.getLogger("cloudpilot.functions")


@dataclass(frozen=True, slots=True)
class Function:
    """A function, as the store keeps it."""

    name: str
    project: str
    runtime: str
    handler: str
    role: str
    digest: str
    code_size: int
    description: str = ""
    timeout: int = 3
    memory_mb: int = 128
    env: dict[str, str] = field(default_factory=dict)
    revision: str = field(default_factory=lambda: str(uuid.uuid4()))
    modified: float = field(default_factory=time.time)

    @property
    def arn(self) -> str:
        """Its name as AWS has it."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.name}"

    def described(self) -> dict[str, Any]:
        """What `GetFunctionConfiguration` answers."""
        return {
            "FunctionName": self.name,
            "FunctionArn": self.arn,
            "Runtime": self.runtime,
            "Role": self.role,
            "Handler": self.handler,
            "CodeSize": self.code_size,
            "Description": self.description,
            "Timeout": self.timeout,
            "MemorySize": self.memory_mb,
            "LastModified": datetime.fromtimestamp(self.modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
            "CodeSha256": base64.b64encode(bytes.fromhex(self.digest)).decode(),
            "Version": "$LATEST",
            "Environment": {"Variables": self.env},
            "RevisionId": self.revision,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "Architectures": ["x86_64"],
        }


class Pool:
    """The instances of one revision of a function."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.idle: list[Instance] = []
        self.count = 0
        self.waiting: deque[asyncio.Future[Instance | None]] = deque()
        self.retired = False


class Functions:
    """All functions of the service."""

    def __init__(self, store: Store, sandboxes: Sandboxes, directory: str) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self.codes = Codes(directory)
        self._pools: dict[tuple[str, str], Pool] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._spawn(self._sweep())
        for entry in store.range("events/"):
            # Accepted by an earlier service, and not known to be done.
            self._spawn(self._deliver(entry.key, entry.value))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stops serving; instances are ended."""
        for task in list(self._tasks):
            task.cancel()
        for pool in self._pools.values():
            self._retire(pool)

    # The store.

    def get(self, project: str, name: str) -> Function:
        """One function."""
        entry = self._store.get(f"functions/{project}/{name}")
        if entry is None:
            arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
            raise LambdaError(404, "ResourceNotFoundException", f"Function not found: {arn}")
        return Function(**entry.value)

    def all(self, project: str) -> list[Function]:
        """A project's functions."""
        return [Function(**entry.value) for entry in self._store.range(f"functions/{project}/")]

    def put(self, function: Function) -> Function:
        """Adds a function, or changes it for calls to come."""
        function = replace(function, revision=str(uuid.uuid4()), modified=time.time())
        self._store.transact({f"functions/{function.project}/{function.name}": asdict(function)})
        self._drop_pool(function)
        return function

    def remove(self, function: Function) -> None:
        """Removes a function."""
        self._store.transact({f"functions/{function.project}/{function.name}": None})
        self._drop_pool(function)
        self.codes.keep_only({entry.value["digest"] for entry in self._store.range("functions/")})

    def _drop_pool(self, function: Function) -> None:
        pool = self._pools.pop((function.project, function.name), None)
        if pool is not None:
            self._retire(pool)

    # Instances.

    def _retire(self, pool: Pool) -> None:
        pool.retired = True
        for instance in pool.idle:
            self._discard(pool, instance)
        pool.idle.clear()

    def _discard(self, pool: Pool, instance: Instance) -> None:
        instance.end()
        self._sandboxes.kill(instance.sandbox)
        pool.count -= 1

    async def _take(self, pool: Pool) -> Instance:
        while True:
            while pool.idle:
                instance = pool.idle.pop()
                if not instance.over.is_set():
                    return instance
                self._discard(pool, instance)
            if pool.count < MOST_INSTANCES:
                return await self._start(pool)
            if len(pool.waiting) >= MOST_WAITING:
                raise LambdaError(429, "TooManyRequestsException", "Rate Exceeded.")
            turn: asyncio.Future[Instance | None] = asyncio.get_running_loop().create_future()
            pool.waiting.append(turn)
            try:
                instance_or_room = await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and (given := turn.result()) is not None:
                    self._give_back(pool, given)
                raise
            if instance_or_room is not None:
                return instance_or_room

    def _give_back(self, pool: Pool, instance: Instance) -> None:
        usable = not instance.over.is_set() and not pool.retired
        if not usable:
            self._discard(pool, instance)
        while pool.waiting:
            turn = pool.waiting.popleft()
            if not turn.done():
                turn.set_result(instance if usable else None)
                return
        if usable:
            pool.idle.append(instance)

    async def _start(self, pool: Pool) -> Instance:
        function = pool.function
        pool.count += 1
        try:
            directory = self.codes.path(function.digest)
            volumes = [
                {"host": directory, "guest": "/var/task", "readonly": True},
                {"host": _BOOTSTRAP, "guest": "/var/runtime", "readonly": True},
            ]
            template = Template(f"function:{function.name}", memory_mb=max(function.memory_mb, 64), volumes=volumes)
            sandbox = await self._sandboxes.create_for(function.project, template, timeout=_INSTANCE_LIFE)
            instance = Instance(sandbox)
            await instance.start(_program(function, directory), _environment(function))
            return instance
        except BaseException:
            pool.count -= 1
            while pool.waiting:
                turn = pool.waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
                    break
            raise

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_PAUSE)
            now = time.monotonic()
            for pool in self._pools.values():
                stale = [each for each in pool.idle if now - each.last_used > KEEP_ALIVE or each.over.is_set()]
                for instance in stale:
                    pool.idle.remove(instance)
                    self._discard(pool, instance)

    # Calls.

    async def invoke(self, function: Function, payload: bytes) -> tuple[str | None, bytes, bytes]:
        """Calls a function. Answers what failed if the function did, its answer, and its log's tail."""
        pool = self._pools.get((function.project, function.name))
        if pool is None or pool.function.revision != function.revision:
            self._drop_pool(function)
            pool = self._pools[function.project, function.name] = Pool(function)
        try:
            instance = await self._take(pool)
        except (Failure, SandboxException) as error:
            return "Unhandled", problem("Runtime.InstanceError", str(error)), b""
        call = Call(payload, time.time() + function.timeout, function.arn)
        try:
            return await instance.serve(call, float(function.timeout))
        except asyncio.CancelledError:
            # The caller has gone; what the program does to an unfinished call is not the next caller's trouble.
            instance.end()
            raise
        finally:
            self._give_back(pool, instance)

    def accept(self, function: Function, payload: bytes, caller: Caller) -> str:
        """Takes a call that nobody waits for; it is done even if the service dies meanwhile. Answers its number."""
        number = str(uuid.uuid4())
        value = {
            "function": function.name,
            "project": function.project,
            "payload": base64.b64encode(payload).decode(),
            "key": caller.key_id,
        }
        self._store.transact({f"events/{number}": value})
        self._spawn(self._deliver(f"events/{number}", value))
        return number

    async def _deliver(self, key: str, value: dict[str, Any]) -> None:
        for pause in (*RETRY_PAUSES, None):
            try:
                function = self.get(value["project"], value["function"])
                error, answer, _ = await self.invoke(function, base64.b64decode(value["payload"]))
            except LambdaError as refused:
                if refused.status == 404:
                    break
                error, answer = refused.kind, refused.message.encode()
            if error is None:
                break
            log.warning("asynchronous call failed", extra={"function": value["function"], "error": answer[:1000].decode(errors="replace")})
            if pause is not None:
                await asyncio.sleep(pause)
        self._store.transact({key: None})


def _program(function: Function, directory: str) -> list[str]:
    if function.runtime.startswith("provided"):
        return ["/var/task/bootstrap"]
    if os.path.isdir(os.path.join(directory, "awslambdaric")):
        return ["python3", "-m", "awslambdaric", function.handler]
    return ["python3", "-B", "/var/runtime/bootstrap.py"]


def _environment(function: Function) -> dict[str, str]:
    return {
        "HOME": "/tmp",
        "PATH": "/var/task:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": "/var/task",
        "PYTHONUNBUFFERED": "1",
        **function.env,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{PORT}",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_HANDLER": function.handler,
    }
