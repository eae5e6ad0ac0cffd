"""`AsyncSandbox`: the same surface, awaited."""

from __future__ import annotations

import asyncio
import inspect
import time

import pytest

from cloudpilot import (
    AsyncSandbox,
    CommandExitException,
    FilesystemEvent,
    NotFoundException,
    PtySize,
    Sandbox,
    SandboxEndedException,
    TimeoutException,
)


def test_a_day_in_the_life() -> None:
    async def main() -> None:
        async with await AsyncSandbox.create(timeout=100, metadata={"a": "b"}) as sandbox:
            result = await sandbox.commands.run("python3 -c 'print(6*7)'")
            assert result.stdout == "42\n"
            await sandbox.files.write("/tmp/a/b", "hello")
            assert await sandbox.files.read("/tmp/a/b") == "hello"
            assert await sandbox.files.exists("/tmp/a")
            assert [entry.name for entry in await sandbox.files.list("/tmp/a")] == ["b"]
            chunks = [chunk async for chunk in await sandbox.files.read("/tmp/a/b", format="stream")]
            assert b"".join(chunks) == b"hello"
            with pytest.raises(NotFoundException):
                await sandbox.files.read("/tmp/nothing")
            with pytest.raises(CommandExitException):
                await sandbox.commands.run("false")
            with pytest.raises(TimeoutException):
                await sandbox.commands.run("sleep 60", timeout=0.3)
            assert (await sandbox.get_info()).metadata == {"a": "b"}
            assert await sandbox.is_running()
            assert len(await AsyncSandbox.list()) == 1
            again = await AsyncSandbox.connect(sandbox.sandbox_id)
            assert await again.is_running()
        assert not await sandbox.is_running()
        with pytest.raises(SandboxEndedException):
            await sandbox.commands.run("true")

    asyncio.run(asyncio.wait_for(main(), 250))


def test_many_commands_wait_at_the_same_time() -> None:
    async def main() -> None:
        async with await AsyncSandbox.create() as sandbox:
            begin = time.monotonic()
            results = await asyncio.gather(*(sandbox.commands.run(f"sleep 5; echo {number}") for number in range(25)))
            assert [result.stdout for result in results] == [f"{number}\n" for number in range(25)]
            assert time.monotonic() - begin < 60

    asyncio.run(asyncio.wait_for(main(), 250))


def test_callbacks_may_be_coroutines() -> None:
    async def main() -> None:
        seen: list[str] = []

        async def take(text: str) -> None:
            await asyncio.sleep(0)
            seen.append(text)

        async with await AsyncSandbox.create() as sandbox:
            await sandbox.commands.run("echo a; sleep 0.2; echo b >&2", on_stdout=take, on_stderr=seen.append)
            handle = await sandbox.commands.run("echo c", background=True, on_stdout=take)
            assert (await handle.wait()).stdout == "c\n"
        assert seen == ["a\n", "b\n", "c\n"]

    asyncio.run(asyncio.wait_for(main(), 250))


def test_background_stdin_and_iteration() -> None:
    async def main() -> None:
        async with await AsyncSandbox.create() as sandbox:
            handle = await sandbox.commands.run("cat", background=True, stdin=True)
            await sandbox.commands.send_stdin(handle.pid, "hello")
            await sandbox.commands.close_stdin(handle.pid)
            assert "".join([out async for out, _, _ in handle if out]) == "hello"
            assert (await handle.wait()).exit_code == 0

    asyncio.run(asyncio.wait_for(main(), 250))


def test_cancelling_kills_the_command() -> None:
    async def main() -> None:
        async with await AsyncSandbox.create() as sandbox:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(sandbox.commands.run("sleep 61"), 0.5)
            for _ in range(100):
                if "61" not in str(await sandbox.commands.list()):
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("the command runs on")

    asyncio.run(asyncio.wait_for(main(), 250))


def test_starts_that_are_cancelled_start_nothing() -> None:
    async def main() -> None:
        async with await AsyncSandbox.create() as sandbox:
            for number in range(40):
                task = asyncio.ensure_future(sandbox.commands.run(f"sleep 10{number}"))
                await asyncio.sleep(0 if number % 2 else 0.001 * number)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            for _ in range(100):
                if "sleep" not in str(await sandbox.commands.list()):
                    break
                await asyncio.sleep(0.05)
            assert "sleep" not in str(await sandbox.commands.list())
            assert (await sandbox.commands.run("echo fine")).stdout == "fine\n"

    asyncio.run(asyncio.wait_for(main(), 250))


def test_cancelled_waits_leave_nothing_behind() -> None:
    async def main() -> None:
        async with await AsyncSandbox.create() as sandbox:
            for _ in range(5):
                deaf = await sandbox.commands.run("sleep 100", background=True, stdin=True)
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(sandbox.commands.send_stdin(deaf.pid, bytes(1 << 20)), 0.2)
                await deaf.kill()
            begin = time.monotonic()
            while time.monotonic() - begin < 2:
                # Descriptors with the numbers of those that were given up, while their deadlines would have come.
                assert (await sandbox.commands.run("sleep 0.1; echo fine")).stdout == "fine\n"
                await sandbox.files.write("/tmp/x", "y")
                assert await sandbox.files.read("/tmp/x") == "y"

    asyncio.run(asyncio.wait_for(main(), 250))


def test_watching_and_terminals() -> None:
    async def main() -> None:
        events: list[FilesystemEvent] = []
        shown: list[bytes] = []
        async with await AsyncSandbox.create() as sandbox:
            await sandbox.files.make_dir("/tmp/watched")
            watch = await sandbox.files.watch_dir("/tmp/watched", events.append)
            await sandbox.files.write("/tmp/watched/x", "y")
            for _ in range(100):
                if events:
                    break
                await asyncio.sleep(0.05)
            await watch.stop()
            assert events[0].name == "x"
            terminal = await sandbox.pty.create(PtySize(20, 70), on_data=shown.append)
            await sandbox.pty.send_stdin(terminal.pid, b"stty size; exit\n")
            await terminal.wait()
            assert b"20 70" in b"".join(shown)

    asyncio.run(asyncio.wait_for(main(), 250))


def test_a_sandbox_that_dies_raises_at_once() -> None:
    async def main() -> None:
        sandbox = await AsyncSandbox.create()
        command = asyncio.ensure_future(sandbox.commands.run("sleep 60"))
        await asyncio.sleep(0.3)
        await sandbox.kill()
        with pytest.raises(SandboxEndedException):
            await asyncio.wait_for(command, 5)

    asyncio.run(asyncio.wait_for(main(), 250))


def test_both_classes_have_the_same_names() -> None:
    async def main() -> None:
        async with await AsyncSandbox.create() as awaited:
            blocking = Sandbox.connect(awaited.sandbox_id)
            for part in ("commands", "files", "pty"):
                assert public(getattr(awaited, part)) == public(getattr(blocking, part))
            assert public(awaited) == public(blocking)

    def public(value: object) -> list[str]:
        return [name for name, _ in inspect.getmembers(type(value)) if not name.startswith("_")]

    asyncio.run(asyncio.wait_for(main(), 250))
