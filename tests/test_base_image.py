"""The image `base`, made of Debian's packages: what is in it, and that programs written for E2B find what they expect. Slow, and needs a mirror."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PILOT, Pilot

sys.path.insert(0, str(Path(__file__).resolve().parent / "service"))

from running_service import Service, set_e2b

pytestmark = [pytest.mark.base, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def images() -> Iterator[Path]:
    """A directory of images that has `base`; `CLOUDPILOT_BASE_IMAGES` names one that has it already."""
    given = os.environ.get("CLOUDPILOT_BASE_IMAGES")
    directory = Path(given or tempfile.mkdtemp(prefix="cp-base-", dir="/var/tmp"))
    if not given:
        build = [PILOT, "image", "build", "--images", directory, "base"]
        done = subprocess.run(build, capture_output=True, text=True, timeout=2000, check=False)
        assert (done.returncode, done.stdout) == (0, "base:latest\n"), done.stderr
    yield directory
    if not given:
        shutil.rmtree(directory)


@pytest.fixture
def with_base(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`base` is what commands find."""
    monkeypatch.setenv("CLOUDPILOT_IMAGES", str(images))


@pytest.mark.usefixtures("with_base")
def test_what_is_in_it(pilot: Pilot) -> None:
    script = 'python3 -c "print(6*7)"; node -e "console.log(6*7)"; id -un; pwd; stat -c %U:%a ~; sudo -n id -u; git --version; pip --version; ss -H'
    lines = pilot.output("--image", "base", "--", "bash", "-ec", script, timeout=120).splitlines()
    assert lines[:6] == ["42", "42", "user", "/home/user", "user:755", "0"]
    assert lines[6].startswith("git version")
    assert lines[7].startswith("pip ")


@pytest.fixture
def service(images: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service whose `base` it is."""
    monkeypatch.setenv("CLOUDPILOT_IMAGES", str(images))
    running = Service(Path(tempfile.mkdtemp(prefix="cps-")))
    try:
        running.start()
        set_e2b(running, monkeypatch)
        yield running
    finally:
        subprocess.run([PILOT, "kill", "--all"], check=False, timeout=60, env=running.environment, capture_output=True)
        running.stop()
        shutil.rmtree(running.directory)


def test_what_programs_for_e2b_do(service: Service, tmp_path: Path) -> None:
    from e2b import Sandbox, Template, wait_for_port, wait_for_url

    (tmp_path / "app.py").write_text("import http.server\nhttp.server.test(http.server.SimpleHTTPRequestHandler, port=8000)\n")
    template = (
        Template(file_context_path=tmp_path)
        .from_base_image()
        .make_dir("site")
        .copy("app.py", "site/")
        .run_cmd("cd site && echo hello > index.html && git init -q . && python3 -m venv --without-pip env && env/bin/python -V")
        .set_workdir("/home/user/site")
        .set_start_cmd("python3 app.py", wait_for_port(8000))
    )
    Template.build(template, "site", memory_mb=512)
    assert "--" not in wait_for_url("http://localhost:8000").get_cmd()
    with Sandbox.create("site", timeout=120) as sandbox:
        # It listens already.
        assert sandbox.commands.run("curl -s localhost:8000/index.html").stdout == "hello\n"
        # Files are found from the home, commands begin in the directory of the template.
        sandbox.files.write("site/data.json", '{"n": [1, 2, 3]}')
        code = "const d = require('./data.json'); console.log(d.n.reduce((a, b) => a + b))"
        sandbox.files.write("site/sum.js", code)
        assert sandbox.commands.run("node sum.js").stdout == "6\n"
        assert sandbox.commands.run('python3 -c \'import json; print(sum(json.load(open("data.json"))["n"]))\'').stdout == "6\n"
        lines: list[str] = []
        sandbox.commands.run("for i in 1 2 3; do echo $i; sleep 0.1; done", on_stdout=lines.append)
        assert "".join(lines).split() == ["1", "2", "3"]
        assert {"app.py", "index.html", "data.json"} <= {entry.name for entry in sandbox.files.list("site")}
