"""What the guest does cannot keep its starter out: with every CPU, all memory or all processes used, commands and files still answer."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable

import pytest
from e2b import CommandExitException, Sandbox
from running_service import Service

pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("e2b_environment")]

PROMPT = 150.0
"""Seconds after which an answer is taken for none. It is milliseconds on a machine with nothing else to do."""
SPINNERS = "for i in $(seq 16); do (while :; do :; done) & done; echo all; wait"
SYSTEM_CALLS = (
    "import os\nfor _ in range(6): os.fork()or os.setpgid(0,0)or exec('while True: os.getppid()')\nprint('all', flush=True)\nos.wait()"
)
MEMORY = """
import time
pieces = []
print("all", flush=True)
while True:
    try:
        pieces.append(bytearray(1 << 20))
    except MemoryError:
        time.sleep(0.01)
"""
SHARED_MEMORY = "dd if=/dev/zero of=/tmp/full bs=1M; dd if=/dev/zero of=/dev/shm/full bs=1M; echo all; sleep 1000"
PROCESSES = """
import os, time
while True:
    try:
        if not os.fork():
            time.sleep(1000)
            os._exit(0)
    except OSError:
        break
print("all", flush=True)
while True:
    # Whatever place gets free is taken at once.
    try:
        if not os.fork():
            time.sleep(1000)
            os._exit(0)
    except OSError:
        pass
"""
PIPES = "import os\npipes = []\ntry:\n    while True: pipes.append(os.pipe())\nexcept OSError: print('all', flush=True)\nimport time\ntime.sleep(1000)"


def answers(sandbox: Sandbox) -> None:
    """Everything that the starter may want, within a time for each."""
    tries: list[Callable[[], object]] = [
        lambda: sandbox.commands.run("echo hi", timeout=PROMPT, request_timeout=PROMPT).stdout == "hi\n",
        lambda: sandbox.files.read("/etc/hostname", request_timeout=PROMPT),
        lambda: sandbox.files.list("/etc", request_timeout=PROMPT),
        lambda: sandbox.commands.list(request_timeout=PROMPT) is not None,
        lambda: sandbox.get_metrics(request_timeout=PROMPT),
        lambda: sandbox.commands.run("echo again", timeout=PROMPT, request_timeout=PROMPT).stdout == "again\n",
    ]
    for number, attempt in enumerate(tries):
        started = time.monotonic()
        assert attempt(), number
        assert time.monotonic() - started < PROMPT, number


@pytest.fixture(scope="module")
def narrow(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A template with little of everything."""
    assert service.request("POST", "/v1/templates", {"name": "narrow", "memory_mb": 128, "cpus": 0.5})[0] == 201
    return "narrow"


@pytest.mark.parametrize("template", ["base", "narrow"])
@pytest.mark.parametrize(
    ("work", "program"),
    [
        ("spinning processes", ["bash", "-c", SPINNERS]),
        ("system calls", ["python3", "-c", SYSTEM_CALLS]),
        ("memory", ["python3", "-c", MEMORY]),
        ("files in memory", ["bash", "-c", SHARED_MEMORY]),
        ("processes", ["python3", "-c", PROCESSES]),
        ("descriptors", ["python3", "-c", PIPES]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_starter_is_answered(narrow: str, template: str, work: str, program: list[str]) -> None:
    with Sandbox.create(template, timeout=1500) as sandbox:
        ended = False
        command = sandbox.commands.run(shlex.join(program), background=True, timeout=0)
        try:
            for stdout, _, _ in command:
                if stdout and "all" in stdout:
                    break
        except CommandExitException:
            # The memory killer was quicker; then there is nothing to be starved by.
            ended = True
        assert not ended or work in ("memory", "files in memory")
        answers(sandbox)
        answers(sandbox)
