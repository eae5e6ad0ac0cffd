"""`pilot function` against a service."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from running_service import PILOT, Service

HANDLER = "import os\ndef handler(event, context):\n    print('said', event)\n    if event == 'fail':\n        raise KeyError('asked')\n    return [event, os.environ.get('COLOUR')]\n"


def pilot(service: Service, *arguments: Any, key: str | None = None, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**service.environment, "CLOUDPILOT_URL": service.url, "CLOUDPILOT_API_KEY": service.key if key is None else key}
    command = [PILOT, "function", *map(str, arguments)]
    return subprocess.run(command, env=environment, input=text, capture_output=True, text=True, timeout=250, check=False)


def test_a_functions_life(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(HANDLER)
    made = pilot(service, "deploy", "mine", "--env", "COLOUR=blue", "--memory", "256m", "--timeout", "20s", file)
    assert (made.returncode, made.stdout) == (0, "mine\n"), made.stderr
    called = pilot(service, "invoke", "mine", '{"n": 1}', "--log")
    assert json.loads(called.stdout) == [{"n": 1}, "blue"]
    assert "said {'n': 1}" in called.stderr
    assert json.loads(pilot(service, "invoke", "mine", "-", text='"piped"').stdout) == ["piped", "blue"]
    failed = pilot(service, "invoke", "mine", '"fail"')
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: The function failed: 'asked'\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "app.py").write_text("import more\ndef run(event, context):\n    return more.word\n")
    (tmp_path / "package" / "more.py").write_text("word = 'from a directory'\n")
    assert pilot(service, "deploy", "mine", "--handler", "app.run", tmp_path / "package").returncode == 0
    assert json.loads(pilot(service, "invoke", "mine").stdout) == "from a directory"
    rows = pilot(service, "list").stdout.splitlines()
    assert rows[0].split() == ["NAME", "CONTRACT", "RUNS", "MEMORY", "CHANGED"]
    assert [row.split()[:3] for row in rows[1:]] == [["mine", "events", "app.run"]]
    assert json.loads(pilot(service, "list", "--json").stdout)[0]["name"] == "mine"
    assert "said piped" in pilot(service, "logs", "mine").stdout
    assert pilot(service, "delete", "mine").returncode == 0
    gone = pilot(service, "invoke", "mine")
    assert (gone.returncode, gone.stderr.splitlines()[0][:26]) == (125, "error: Function not found:")


def test_logs_are_followed(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(HANDLER)
    pilot(service, "deploy", "told", file)
    environment = {**service.environment, "CLOUDPILOT_URL": service.url, "CLOUDPILOT_API_KEY": service.key}
    follower = subprocess.Popen([PILOT, "function", "logs", "told", "--follow"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert follower.stdout is not None
        for number in range(2):
            pilot(service, "invoke", "told", number)
            deadline = time.monotonic() + 90
            while f"said {number}" not in follower.stdout.readline():
                assert time.monotonic() < deadline
    finally:
        follower.terminate()
        follower.wait(timeout=90)
        if follower.stdout is not None:
            follower.stdout.close()
    pilot(service, "delete", "told")


def test_servers_and_what_is_wrong(service: Service, tmp_path: Path) -> None:
    server = (
        "import http.server, os\nhttp.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ['PORT']), bind='0.0.0.0')\n"
    )
    (tmp_path / "server.py").write_text(server)
    made = pilot(service, "deploy", "site", "--http", "--public", "--concurrency", 4, tmp_path, "--", "python3", "server.py")
    assert made.stdout.startswith("http://"), made.stderr
    path = made.stderr.split()[2]
    assert service.request("GET", path + "server.py", key="")[1].decode() == server
    pilot(service, "delete", "site")
    for arguments, message in (
        (("deploy", "x", tmp_path / "absent"), f"error: There is no `{tmp_path}/absent`"),
        (("deploy", "x", tmp_path), "error: handler: It has no handler"),
        (("deploy", "x!", "--handler", "a.b", tmp_path), "error: name: String should match pattern"),
        (("deploy", "x", "--memory", "lots", tmp_path), "error: `lots` is not a size"),
        (("invoke", "x", "{"), "error: The event is not JSON"),
        (("fly",), "error: There is no `pilot function fly`"),
        (("logs", "absent"), "error: Function not found"),
    ):
        done = pilot(service, *arguments)
        assert (done.returncode, done.stderr[: len(message)]) == (125, message)
        assert "\nhint: " in done.stderr
    assert "hint: an admin makes keys" in pilot(service, "list", key="e2b_" + "0" * 40).stderr
    assert pilot(service, "--help").stdout.startswith("Usage: pilot function deploy")
