"""`cloudpilot.App`: functions of a program, run by a service, in a sandbox, in the program."""

from __future__ import annotations

import base64
import datetime as dt
import os
import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from running_service import Service

from cloudpilot import App, InvalidArgumentException
from cloudpilot.app_values import failure_of, loads

PROGRAM = """
import dataclasses, datetime, os, sys
import cloudpilot
import beside

app = cloudpilot.App("prog", include=["beside.py", "data"])

@dataclasses.dataclass
class Point:
    x: int
    y: int

@app.function(env={"COLOUR": "blue"}, timeout=30)
def inspect(point, *, more=None):
    print("in it")
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "word.txt")) as file:
        word = file.read()
    return {"sum": point.x + point.y, "more": more, "word": word, "beside": beside.double(4), "colour": os.environ.get("COLOUR"),
            "when": datetime.date(2026, 1, 2), "pid": os.getpid(), "many": {1, 2}, "raw": b"\\xff"}

@app.function()
def square(x):
    if x == 13:
        raise ValueError("unlucky")
    return x * x

@app.function()
def own(x):
    return Point(x, x)

@app.function()
def dies():
    os._exit(9)

def main():
    found = inspect.remote(Point(1, 2), more=[1])
    there = found.pop("pid") != os.getpid() or app.where == "process"
    assert there
    print(found["sum"], found["more"], found["word"], found["beside"], found["colour"], found["when"], sorted(found["many"]), found["raw"])
    print(list(square.map(range(6))), sorted(square.map(range(6), order_outputs=False)), square.local(3), square(4))
    print([type(each).__name__ for each in square.map([1, 13], return_exceptions=True)])
    calls = [square.spawn(number) for number in range(3)]
    print([call.get(30) for call in calls], list(square.starmap([(7,)])))
    try:
        square.remote(13)
    except ValueError as error:
        print(error, "unlucky" in "".join(getattr(error, "__notes__", ["unlucky"])))
    if app.where != "process":
        try:
            own.remote(1)
        except cloudpilot.InvalidArgumentException as error:
            print("refused" if "not plain data" in error.message else error)
        try:
            dies.remote()
        except cloudpilot.SandboxException as error:
            print("died")
    app.close()

if __name__ == "__main__":
    main()
"""
EXPECTED = """3 [1] a word 8 {colour} 2026-01-02 [1, 2] b'\\xff'
[0, 1, 4, 9, 16, 25] [0, 1, 4, 9, 16, 25] 9 16
['int', 'ValueError']
[0, 1, 4] [49]
unlucky True
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "prog.py").write_text(PROGRAM)
    (tmp_path / "beside.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "word.txt").write_text("a word")
    return tmp_path / "prog.py"


def run(program: Path, environment: dict[str, str]) -> str:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDPILOT_", "E2B_"))}
    if "CLOUDPILOT_SANDBOX_BINARY" in os.environ:
        known["CLOUDPILOT_SANDBOX_BINARY"] = os.environ["CLOUDPILOT_SANDBOX_BINARY"]
    done = subprocess.run([sys.executable, program], env={**known, **environment}, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_service_it_runs_in_the_program(program: Path) -> None:
    assert run(program, {}) == "in it\n" + EXPECTED.format(colour=None)


@pytest.mark.timeout(450)
def test_in_the_service(service: Service, program: Path) -> None:
    environment = {"CLOUDPILOT_URL": service.url, "CLOUDPILOT_API_KEY": service.key}
    assert run(program, environment) == EXPECTED.format(colour="blue") + "refused\ndied\n"
    names = {each["name"]: each["modified"] for each in service.request("GET", "/v1/functions")[1]["functions"]}
    assert set(names) == {"prog-inspect", "prog-square", "prog-own", "prog-dies"}
    assert "in it" in "".join(each["text"] for each in service.request("GET", "/v1/functions/prog-inspect/log")[1]["entries"])
    # What has not changed is not sent again.
    run(program, environment)
    again = {each["name"]: each["modified"] for each in service.request("GET", "/v1/functions")[1]["functions"]}
    assert again["prog-square"] == names["prog-square"]
    program.write_text(PROGRAM.replace("x * x", "x + x"))
    assert "[0, 2, 4, 6, 8, 10]" in run(program, environment)
    for name in names:
        service.request("DELETE", f"/v1/functions/{name}")


@pytest.mark.timeout(450)
def test_in_sandboxes_of_this_host(program: Path, tmp_path: Path) -> None:
    program.write_text(PROGRAM.replace('App("prog", ', 'App("prog", where="sandbox", '))
    told = run(program, {"XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", "")} if "XDG_RUNTIME_DIR" in os.environ else {})
    assert told == "in it\n" + EXPECTED.format(colour="blue") + "refused\ndied\n"


def test_what_comes_back_is_read_without_being_run() -> None:
    value = [1, "ä", b"x", {1: (2.5, None)}, {3}, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), Decimal("1.5"), bytearray(b"ab"), 2 + 3j]
    assert loads(pickle.dumps(value, protocol=4)) == value
    ran: list[str] = []

    class Bomb:
        def __reduce__(self) -> Any:
            return os.system, ("true",)

    class Large:
        def __reduce__(self) -> Any:
            return bytearray, (1 << 40,)

    for bad in (pickle.dumps(Bomb()), pickle.dumps(Large()), b"", b"\x80\x04", pickle.dumps(ran.append), base64.b64decode("gASVAA==")):
        with pytest.raises(InvalidArgumentException):
            loads(bad)
    # Exceptions that would do something here come as data.
    for kind in ("SystemExit", "KeyboardInterrupt", "StopIteration", "os.system", "open", "NotThere"):
        assert type(failure_of({"type": kind, "message": "m"})).__name__ == "FunctionException"
    assert isinstance(failure_of({"type": "UnicodeDecodeError", "message": "m"}), Exception)


def test_what_cannot_be_taken_elsewhere() -> None:
    app = App("local", where="process")
    with pytest.raises(InvalidArgumentException):

        @app.function()
        def inner() -> None:
            pass

    with pytest.raises(InvalidArgumentException):
        App("no name!")
    with pytest.raises(InvalidArgumentException):
        App("x", where="moon")
