"""Functions of a Python program that run elsewhere: in a service, in a sandbox on this host, or, while it is written, in the program.

    >>> import cloudpilot
    >>> app = cloudpilot.App("sums")
    >>> @app.function(memory_mb=512)
    ... def square(x):
    ...     return x * x
    >>> square.remote(7)
    49
    >>> list(square.map(range(3)))
    [0, 1, 4]

The names are Modal's. A function goes with the module that it is in, or the package, and what `include` names; arguments may be whatever
can be pickled. What comes back is plain data: numbers, text, bytes, dates, and collections of them. It comes from behind a wall, and the
program that reads it must not run what is in it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TextIO, TypeVar

from cloudpilot.app_values import failure_of, loads
from cloudpilot.errors import InvalidArgumentException, NotSupportedException, TimeoutException

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Self

    from cloudpilot.remote import Service
    from cloudpilot.sandbox import Sandbox

P = ParamSpec("P")
R = TypeVar("R")

PLACES = ("service", "sandbox", "process")
MOST_AT_ONCE = 16
"""Calls of `map` that are under way at a time, unless told otherwise."""
_LIBRARY = ("core", "engine")
_RUNNER = "cloudpilot_call"


class App:
    """Functions that belong together.

    Args:
        name: Begins the names that the service knows its functions by.
        where: Where `remote` runs them: `service`; `sandbox`, one for each function on this host; or `process`, which is this one, without
            any wall. By default in the service if `CLOUDPILOT_URL` or `CLOUDPILOT_API_KEY` is set, else in this process.
        url: The service, if it is not the one that `CLOUDPILOT_URL` names.
        key: The key for it, if it is not the one in `CLOUDPILOT_API_KEY`.
        include: Files and directories that its functions need beside their own modules, relative to the directory that the module is in.
    """

    def __init__(
        self, name: str, *, where: str | None = None, url: str | None = None, key: str | None = None, include: Sequence[str] = ()
    ) -> None:
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            raise InvalidArgumentException(f"`{name}` is not a name for an app", "write it with letters, digits, `-` and `_`")
        if where not in (None, *PLACES):
            raise InvalidArgumentException(f"`{where}` is no place to run", f"say one of {', '.join(PLACES)}")
        self.name = name
        self.functions: dict[str, Function[Any, Any]] = {}
        self._where = where
        self._url, self._key = url, key
        self._include = tuple(include)
        self._service: Service | None = None
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def where(self) -> str:
        """Where `remote` runs its functions."""
        if self._where is None:
            from cloudpilot.remote import configured

            self._where = "service" if self._url or self._key or configured() else "process"
        return self._where

    def function(
        self,
        *,
        name: str | None = None,
        memory_mb: int = 256,
        timeout: int = 60,
        env: Mapping[str, str] | None = None,
        include: Sequence[str] = (),
    ) -> Callable[[Callable[P, R]], Function[P, R]]:
        """Makes a function one of this app's.

        Args:
            name: What to call it, if not by its own name.
            memory_mb: Memory of an instance.
            timeout: Seconds that a call may take.
            env: Variables of its process.
            include: What it needs beside what the app says.
        """

        def decorate(function: Callable[P, R]) -> Function[P, R]:
            if "<locals>" in function.__qualname__ or "." in function.__qualname__:
                hint = "put it at the top of its module, where others can import it"
                raise InvalidArgumentException(f"`{function.__qualname__}` is inside of another function or a class", hint)
            made = Function(self, function, name or function.__name__, memory_mb, timeout, dict(env or {}), (*self._include, *include))
            self.functions[made.name] = made
            return made

        return decorate

    def deploy(self) -> list[str]:
        """Takes all functions to the service, if they are not there as they are now. Answers their names there."""
        if self.where != "service":
            raise NotSupportedException("There is no service to take the functions to", "set CLOUDPILOT_URL and CLOUDPILOT_API_KEY")
        return [function._deployed() for function in self.functions.values()]

    def service(self) -> Service:
        """The service that runs its functions."""
        from cloudpilot.remote import Service

        with self._lock:
            if self._service is None:
                self._service = Service(self._url, self._key)
            return self._service

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix=f"cloudpilot-{self.name}")
            return self._pool

    def close(self) -> None:
        """Waits for what was spawned, and ends sandboxes on this host. The service keeps its functions."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        for function in self.functions.values():
            function._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FunctionCall(Generic[R]):
    """A call that was spawned. It is under way as long as this program is."""

    def __init__(self, future: Future[R]) -> None:
        self._future = future

    def get(self, timeout: float | None = None) -> R:
        """What the function answers, or the exception that it raises; waits for it, for that many seconds at most."""
        try:
            return self._future.result(timeout)
        except FutureTimeoutError:
            if self._future.done():
                raise
            raise TimeoutException(f"The call has not ended within {timeout} s") from None

    def done(self) -> bool:
        """Whether it has ended."""
        return self._future.done()

    def cancel(self) -> bool:
        """Keeps it from beginning; answers whether it had not yet begun."""
        return self._future.cancel()


class Function(Generic[P, R]):
    """A function of an app. Called as it is, it runs here, like any other."""

    def __init__(
        self,
        app: App,
        function: Callable[P, R],
        name: str,
        memory_mb: int,
        timeout: int,
        env: dict[str, str],
        include: tuple[str, ...],
    ) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.name = name
        self._function = function
        self._settings: dict[str, Any] = {"memory_mb": memory_mb, "timeout": timeout, "env": env}
        self._include = include
        self._lock = threading.Lock()
        self._name_there: str | None = None
        self._sandbox: Sandbox | None = None
        self._numbers = itertools.count()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs it in this process."""
        return self._function(*args, **kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs it in this process."""
        return self._function(*args, **kwargs)

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs it where the app says, and waits for what it answers."""
        return self._run(args, kwargs)

    def spawn(self, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        """Runs it where the app says, and does not wait."""
        return FunctionCall(self.app._threads().submit(self._run, args, kwargs))

    def map(
        self, *iterables: Iterable[Any], at_once: int = MOST_AT_ONCE, order_outputs: bool = True, return_exceptions: bool = False
    ) -> Iterator[Any]:
        """Runs it for each element, or for the first ones of several iterables, then the second ones, and so on.

        Args:
            iterables: The arguments.
            at_once: Calls that are under way at a time.
            order_outputs: Whether answers come in the order of the arguments, rather than as they are there.
            return_exceptions: Whether an exception is an answer as well, rather than the end.
        """
        arguments = zip(*iterables, strict=False)
        return self.starmap(arguments, at_once=at_once, order_outputs=order_outputs, return_exceptions=return_exceptions)

    def starmap(
        self,
        arguments: Iterable[Sequence[Any]],
        *,
        at_once: int = MOST_AT_ONCE,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Like `map`, for arguments that are in tuples already."""
        with ThreadPoolExecutor(at_once) as pool:
            under_way: list[Future[Any]] = []
            try:
                for each in arguments:
                    under_way.append(pool.submit(self._run, tuple(each), {}))
                    # As far ahead of whoever asks as is worth it, and no further: there may be no end of arguments.
                    while len(under_way) >= 2 * at_once:
                        yield _answer(_next(under_way, order_outputs), return_exceptions)
                while under_way:
                    yield _answer(_next(under_way, order_outputs), return_exceptions)
            finally:
                for future in under_way:
                    future.cancel()

    # Where it runs.

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> R:
        if self.app.where == "process":
            return self._function(*args, **kwargs)
        module, _ = self._module()
        call = base64.b64encode(pickle.dumps((args, dict(kwargs)), protocol=4)).decode()
        event = {"module": module, "function": self._function.__qualname__, "call": call}
        outcome = self._in_service(event) if self.app.where == "service" else self._in_sandbox(event)
        if "error" in outcome:
            raise failure_of(outcome["error"])
        answer: R = loads(base64.b64decode(outcome["value"]))
        return answer

    def _in_service(self, event: dict[str, Any]) -> dict[str, Any]:
        name = self._deployed()
        outcome = self.app.service().request("POST", f"/v1/functions/{name}/invoke", event, seconds=self._settings["timeout"])
        if outcome["error"] is None:
            return dict(outcome["result"])
        result = outcome["result"] if isinstance(outcome["result"], dict) else {"errorMessage": str(outcome["result"])}
        kind = str(result.get("errorType", "Runtime.ExitError"))
        return {"error": {"type": kind, "message": str(result.get("errorMessage", "")), "traceback": outcome["log"]}}

    def _deployed(self) -> str:
        with self._lock:
            if self._name_there is None:
                name = f"{self.app.name}-{self.name}"
                archive = self._archive()
                given = {"name": name, "handler": f"{_RUNNER}.handler", **self._settings, "code": base64.b64encode(archive).decode()}
                self.app.service()
                if not self._is_there(name, hashlib.sha256(archive).hexdigest()):
                    self.app.service().request("POST", "/v1/functions", given)
                self._name_there = name
            return self._name_there

    def _is_there(self, name: str, digest: str) -> bool:
        if self._settings["env"]:
            return False  # The service does not tell what variables a function has.
        known = self.app.service().request("GET", "/v1/functions")["functions"]
        expected = {"name": name, "code_sha256": digest, "memory_mb": self._settings["memory_mb"], "timeout": self._settings["timeout"]}
        return any(all(each[key] == value for key, value in expected.items()) for each in known)

    def _in_sandbox(self, event: dict[str, Any]) -> dict[str, Any]:
        import json

        with self._lock:
            sandbox = self._sandbox or self._start()
        number = next(self._numbers)
        sandbox.files.write(f"/tmp/call-{number}", json.dumps(event))
        command = f"exec python3 {_RUNNER}.py /tmp/call-{number} /tmp/answer-{number}"
        sandbox.commands.run(
            command, cwd="/code", envs=self._settings["env"], timeout=self._settings["timeout"],
            on_stdout=_written_to(sys.stdout), on_stderr=_written_to(sys.stderr),
        )  # fmt: skip
        answer = json.loads(sandbox.files.read(f"/tmp/answer-{number}"))
        for name in ("call", "answer"):
            sandbox.files.remove(f"/tmp/{name}-{number}")
        return dict(answer)

    def _start(self) -> Sandbox:
        from cloudpilot.sandbox import Sandbox

        sandbox = Sandbox.create(memory=f"{self._settings['memory_mb']}m", timeout=None)
        sandbox.files.write("/code/code.zip", self._archive())
        sandbox.commands.run("python3 -m zipfile -e code.zip . && rm code.zip", cwd="/code")
        self._sandbox = sandbox
        return sandbox

    def _close(self) -> None:
        with self._lock:
            sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.kill()

    # What is taken there.

    def _module(self) -> tuple[str, ModuleType]:
        """The module's name there, and the module."""
        module = sys.modules[self._function.__module__]
        file = getattr(module, "__file__", None)
        if file is None:
            message = f"`{self.name}` is not in a file, which could be taken elsewhere"
            raise NotSupportedException(message, 'write it into a module; in an interactive session use `where="process"`')
        if module.__name__ != "__main__":
            return module.__name__, module
        name = os.path.splitext(os.path.basename(file))[0]
        # `python -m package.module`
        return (f"{module.__spec__.parent}.{name}" if module.__spec__ and module.__spec__.parent else name), module

    def _archive(self) -> bytes:
        from cloudpilot import __file__ as own
        from cloudpilot.bundle import files_below, zipped

        name, module = self._module()
        path = os.path.abspath(str(module.__file__))
        top = os.path.dirname(path)
        for _ in range(name.count(".")):
            top = os.path.dirname(top)
        if "." in name:
            package = name.partition(".")[0]
            files = files_below(os.path.join(top, package), package)
        else:
            files = {os.path.basename(path): (_read(path), 0o644)}
        for each in self._include:
            place = os.path.normpath(os.path.join(os.path.dirname(path), each))
            relative = os.path.relpath(place, top)
            if relative.startswith(".."):
                raise InvalidArgumentException(f"`{each}` is outside of the module's directory", "copy it there, or name what is inside")
            if os.path.isdir(place):
                files |= files_below(place, "" if relative == "." else relative)
            else:
                files[relative] = _read(place), os.stat(place).st_mode
        library = os.path.dirname(own)
        for each in sorted(os.listdir(library)):
            if each.endswith(".py"):
                files[f"cloudpilot/{each}"] = _read(os.path.join(library, each)), 0o644
            elif each in _LIBRARY:
                files |= files_below(os.path.join(library, each), f"cloudpilot/{each}")
        files[f"{_RUNNER}.py"] = _read(os.path.join(library, "app_runner.py")), 0o644
        return zipped(files)


def _written_to(stream: TextIO) -> Callable[[str], None]:
    def write(text: str) -> None:
        stream.write(text)

    return write


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _next(under_way: list[Future[Any]], ordered: bool) -> Future[Any]:
    if ordered:
        return under_way.pop(0)
    from concurrent.futures import FIRST_COMPLETED, wait

    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
    future = next(iter(done))
    under_way.remove(future)
    return future


def _answer(future: Future[Any], return_exceptions: bool) -> Any:
    try:
        return future.result()
    except Exception as error:
        if not return_exceptions:
            raise
        return error
