"""E2B's asynchronous client, unmodified."""

from __future__ import annotations

import asyncio

import pytest
from e2b import AsyncSandbox, CommandExitException, NotFoundException, PtySize, TimeoutException
from e2b.sandbox.filesystem.watch_handle import FilesystemEvent

pytestmark = pytest.mark.usefixtures("e2b_environment")


def test_everything_at_once() -> None:
    asyncio.run(_everything())


async def _everything() -> None:
    sandbox = await AsyncSandbox.create(metadata={"client": "async"}, envs={"A": "b"})
    try:
        results = await asyncio.gather(*(sandbox.commands.run(f"echo {number} $A") for number in range(10)))
        assert [each.stdout for each in results] == [f"{number} b\n" for number in range(10)]
        with pytest.raises(CommandExitException):
            await sandbox.commands.run("exit 4")
        with pytest.raises(TimeoutException):
            await sandbox.commands.run("sleep 50", timeout=1)

        seen: list[str] = []
        handle = await sandbox.commands.run("while read x; do echo got $x; done", background=True, stdin=True, on_stdout=seen.append)
        await sandbox.commands.send_stdin(handle.pid, "one\ntwo\n")
        await sandbox.commands.close_stdin(handle.pid)
        assert (await handle.wait()).stdout == "got one\ngot two\n"
        assert "".join(seen) == "got one\ngot two\n"

        await sandbox.files.write("/tmp/x/y", b"12345")
        assert await sandbox.files.read("/tmp/x/y", format="bytes") == b"12345"
        stream = await sandbox.files.read("/tmp/x/y", format="stream")
        assert b"".join([chunk async for chunk in stream]) == b"12345"
        with pytest.raises(NotFoundException):
            await sandbox.files.read("/tmp/none")

        events: list[FilesystemEvent] = []
        watch = await sandbox.files.watch_dir("/tmp/x", on_event=events.append)
        await sandbox.files.write("/tmp/x/z", "new")
        for _ in range(200):
            if any(each.name == "z" for each in events):
                break
            await asyncio.sleep(0.02)
        assert any(each.name == "z" for each in events)
        await watch.stop()

        output: list[bytes] = []
        terminal = await sandbox.pty.create(PtySize(rows=20, cols=60), on_data=output.append)
        async with sandbox.pty.stream_input(terminal.pid) as typed:
            await typed.send("stty size\n")
            await asyncio.sleep(0.1)
            await typed.send(b"exit\n")
        await terminal.wait()
        assert b"20 60" in b"".join(output)

        found = await AsyncSandbox.connect(sandbox.sandbox_id)
        assert (await found.get_info()).metadata == {"client": "async"}
        page = await AsyncSandbox.list().next_items()
        assert sandbox.sandbox_id in [each.sandbox_id for each in page]
    finally:
        assert await sandbox.kill()
    assert not await sandbox.is_running()
