"""`Pool`: sandboxes that were started in advance."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import eventually, process_lives, sandboxes_left

from cloudpilot import AsyncPool, InvalidArgumentException, Pool, Sandbox, SandboxException
from cloudpilot.engine import records


def kernel_process(sandbox: Sandbox) -> Path:
    record = records.read(sandbox.sandbox_id)
    assert record is not None
    return Path(f"/proc/{record.kernel_pid}")


def test_sandboxes_of_a_pool_are_apart_from_each_other() -> None:
    with Pool(2, memory="64m", hostname="alike") as pool:
        pool.wait()
        first = pool.create(envs={"WHO": "first"}, cwd="/tmp", metadata={"number": "1"})
        second = pool.create(envs={"WHO": "second"})
        with first, second:
            assert first.sandbox_id != second.sandbox_id
            assert first.commands.run("echo $WHO; pwd; hostname").stdout == "first\n/tmp\nalike\n"
            first.files.write("/tmp/here", "x")
            assert second.commands.run("echo $WHO; ls /tmp | wc -l; ps ax | grep -c bash").stdout.startswith("second\n0\n")
            assert first.get_info().metadata == {"number": "1"}
            assert first.get_info().end_at is not None
            assert Sandbox.connect(first.sandbox_id).files.read("/tmp/here") == "x"


def test_what_is_taken_is_replaced_and_none_is_left_when_it_closes(state: Path) -> None:
    with Pool(2) as pool:
        pool.wait()
        assert pool.waiting == 2
        taken = pool.create()
        eventually(lambda: pool.waiting == 2 and len(sandboxes_left(state)) == 3)
    assert sandboxes_left(state) == [taken.sandbox_id]
    assert taken.commands.run("echo lives").stdout == "lives\n"
    taken.kill()
    with pytest.raises(SandboxException, match="closed"):
        pool.create()


def test_more_than_wait_can_be_had() -> None:
    with Pool(1) as pool:
        made = [pool.create() for _ in range(3)]
        assert [each.commands.run("echo ok").stdout for each in made] == ["ok\n"] * 3
        for each in made:
            each.kill()


def test_a_waiting_sandbox_that_is_killed_is_not_handed_out(state: Path) -> None:
    with Pool(1) as pool:
        pool.wait()
        record = records.read(sandboxes_left(state)[0])
        assert record is not None
        os.kill(record.kernel_pid, signal.SIGKILL)
        eventually(lambda: pool.waiting == 0)
        with pool.create() as sandbox:
            assert sandbox.commands.run("echo ok").stdout == "ok\n"


def test_a_pools_sandbox_sits_in_the_same_jail_as_any_other() -> None:
    def jail(sandbox: Sandbox) -> dict[str, object]:
        process = kernel_process(sandbox)
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        names = ("Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")
        found: dict[str, object] = {name: status.get(name) for name in names}
        found["limits"] = (process / "limits").read_text()
        # Of the host's namespaces it shares none that the other does not.
        found["shared"] = {name for name in os.listdir("/proc/self/ns") if same_namespace(process, name)}
        return found

    def same_namespace(process: Path, name: str) -> bool:
        return os.stat(process / "ns" / name).st_ino == os.stat(f"/proc/self/ns/{name}").st_ino

    with Pool(1, memory="128m", pids=50) as pool, Sandbox.create(memory="128m", pids=50) as fresh:
        pool.wait()
        with pool.create() as pooled:
            assert jail(pooled) == jail(fresh)
            inside = (
                "cat /proc/self/status | grep -E 'Uid|Gid|Cap'; ls -l /proc/self/fd | wc -l; cat /proc/meminfo | head -1; ulimit -a; mount"
            )
            assert pooled.commands.run(inside).stdout == fresh.commands.run(inside).stdout


def test_waiting_costs_no_processor_time(state: Path) -> None:
    def spent() -> int:
        total = 0
        for name in sandboxes_left(state):
            record = records.read(name)
            assert record is not None
            for pid in (record.kernel_pid, record.supervisor_pid):
                total += sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
        return total

    def settled() -> bool:
        before = spent()
        time.sleep(1.2)
        return spent() == before

    with Pool(2) as pool:
        pool.wait()
        eventually(settled, patience=90)


def test_a_pool_dies_with_its_owner(state: Path) -> None:
    code = "from cloudpilot import Pool\npool = Pool(2)\npool.wait()\nprint('full', flush=True)\nimport time; time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"full\n"
    found = [records.read(name) for name in sandboxes_left(state)]
    assert len(found) == 2
    owner.kill()
    owner.wait(timeout=10)
    owner.stdout.close()
    eventually(lambda: not sandboxes_left(state))
    assert not any(each and process_lives(each.kernel_pid) for each in found)


def test_what_cannot_be_is_said_at_once() -> None:
    with pytest.raises(InvalidArgumentException, match="0 sandboxes"):
        Pool(0)
    with pytest.raises(InvalidArgumentException, match="not a size"):
        Pool(1, memory="much")
    with Pool(1, rootfs="/nowhere") as pool:
        with pytest.raises(SandboxException, match="/nowhere"):
            pool.wait()
        with pytest.raises(SandboxException, match="/nowhere"):
            pool.create()


def test_asyncio_has_the_same() -> None:
    async def use() -> str:
        async with AsyncPool(1) as pool:
            await pool.wait()
            sandbox = await pool.create(envs={"WHO": "me"})
            try:
                return (await sandbox.commands.run("echo $WHO")).stdout
            finally:
                await sandbox.kill()

    assert asyncio.run(use()) == "me\n"

    def surface(of: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(each).parameters) for name, each in inspect.getmembers(of, inspect.isfunction) if name[0] != "_"
        }

    assert surface(Pool) == surface(AsyncPool)
