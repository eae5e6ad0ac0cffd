"""`pilot image`, and sandboxes that start from images."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import oci
import pytest
from harness import Pilot
from oci import Builder, directory, file, symlink, tar

PROBE = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
extern char **environ;
int main(int count, char **arguments) {
    char directory[4096];
    printf("id %d %d %d %d\ncwd %s\n", getuid(), getgid(), geteuid(), getegid(), getcwd(directory, sizeof directory));
    for (int index = 0; index < count; index++) printf("arg %s\n", arguments[index]);
    for (char **each = environ; *each; each++) printf("env %s\n", *each);
    const char *paths[] = {"/etc/shadow", "/bin/probe-su", "/home/me", "/home/me/file", "/link", "/"};
    for (int index = 0; index < 6; index++) {
        struct stat found;
        if (lstat(paths[index], &found)) printf("none %s\n", paths[index]);
        else printf("stat %s %o %d %d\n", paths[index], found.st_mode & 07777, found.st_uid, found.st_gid);
    }
    fflush(stdout);
    if (count > 1 && !strcmp(arguments[1], "wait")) pause();
    FILE *shadow = fopen("/etc/shadow", "r");
    printf("shadow %s\n", shadow ? "opens" : "does not open");
    return 0;
}
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program that tells what it sees."""
    path = tmp_path_factory.mktemp("probe")
    (path / "probe.c").write_text(PROBE)
    subprocess.run(["gcc", "-O1", "-static", "-w", "-o", path / "probe", path / "probe.c"], check=True, timeout=120)
    return (path / "probe").read_bytes()


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "images"
    monkeypatch.setenv("CLOUDPILOT_IMAGES", str(path))
    return path


@pytest.fixture
def web(tmp_path: Path, probe: bytes) -> Path:
    """A layout with an image that says much about itself."""
    passwd = b"root:x:0:0::/root:/bin/sh\nme:x:1000:1001::/home/me:/bin/sh\n"
    layer = tar(
        [
            directory("bin"), file("bin/probe", probe, mode=0o755), file("bin/probe-su", probe, mode=0o4755), symlink("link", "x", uid=3, gid=4),
            directory("etc"), file("etc/passwd", passwd), file("etc/shadow", b"secret", mode=0o600),
            directory("home"), directory("home/me", mode=0o700, uid=1000, gid=1001), file("home/me/file", mode=0o600, uid=1000, gid=1001),
        ]
    )  # fmt: skip
    config = {"Entrypoint": ["/bin/probe"], "Cmd": ["serve"], "Env": ["COLOUR=blue"], "WorkingDir": "/srv/app", "User": "me"}
    Builder(tmp_path / "web").image(layer, config=config, tag="v1")
    return tmp_path / "web"


@pytest.fixture
def imported(pilot: Pilot, web: Path) -> str:
    result = pilot("image", "import", web, "--tag", "v1", "--name", "web")
    assert (result.returncode, result.stdout) == (0, b"web:latest\n"), result
    return "web"


def test_an_image_says_how_it_runs(pilot: Pilot, imported: str) -> None:
    lines = pilot.output("--image", imported).splitlines()
    assert {"id 1000 1001 1000 1001", "cwd /srv/app", "arg /bin/probe", "arg serve", "env COLOUR=blue", "env HOME=/home/me"} <= set(lines)
    # Inside it all belongs to whom the image says, whoever has it on the host.
    stats = {line.split()[1]: line.split()[2:] for line in lines if line.startswith("stat")}
    assert stats == {
        "/etc/shadow": ["600", "0", "0"], "/bin/probe-su": ["4755", "0", "0"], "/home/me": ["700", "1000", "1001"],
        "/home/me/file": ["600", "1000", "1001"], "/link": ["777", "3", "4"], "/": ["755", "0", "0"],
    }  # fmt: skip
    assert "shadow does not open" in lines


def test_what_is_given_comes_first(pilot: Pilot, imported: str) -> None:
    given = ("--user", "root", "--workdir", "/etc", "--env", "COLOUR=red", "--image", imported, "--", "other", "-x")
    lines = pilot.output(*given).splitlines()
    assert {"id 0 0 0 0", "cwd /etc", "env COLOUR=red", "arg other", "arg -x", "shadow opens"} <= set(lines)
    assert "arg serve" not in lines


def test_set_id_bits_count(pilot: Pilot, imported: str) -> None:
    lines = pilot.output("--image", imported, "--entrypoint", "/bin/probe-su").splitlines()
    assert {"id 1000 1001 0 1001", "arg /bin/probe-su", "shadow opens"} <= set(lines)
    assert "arg serve" not in lines


def test_list_show_remove(pilot: Pilot, imported: str) -> None:
    assert b"web:latest" in pilot("image", "list").stdout
    (listed,) = json.loads(pilot("image", "list", "--json").stdout)
    shown = json.loads(pilot("image", "show", "web").stdout)
    assert shown == listed
    assert shown["config"]["entrypoint"] == ["/bin/probe"]
    assert pilot("image", "remove", "web").returncode == 0
    assert json.loads(pilot("image", "list", "--json").stdout) == []
    gone = pilot.run("--image", "web")
    assert gone.returncode == 125
    assert gone.stderr.startswith(b"error: There is no image `web`\nhint: ")


def test_files_stay_as_long_as_a_sandbox_shows_them(pilot: Pilot, imported: str, tmp_path: Path, images: Path) -> None:
    assert pilot.run("--image", imported, "--detach", "--name", "box", "--entrypoint", "/bin/probe", "--", "wait").returncode == 0
    # As if it had been started long ago.
    (marker,) = images.glob("roots/*/layers.json")
    os.utime(marker, (1, 1))
    assert pilot("image", "remove", imported).returncode == 0
    assert marker.exists()
    assert b"arg again" in pilot("exec", "box", "--", "/bin/probe", "again").stdout
    assert pilot("kill", "box").returncode == 0
    assert pilot("image", "import", oci.simple(tmp_path / "l", file("a")), "--name", "other").returncode == 0
    assert pilot("image", "remove", "other").returncode == 0
    assert not marker.exists()


def test_a_root_directory(pilot: Pilot, tmp_path: Path, probe: bytes) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/probe").write_bytes(probe)
    (root / "bin/probe").chmod(0o755)
    result = pilot("image", "import", "--rootfs", root, "--name", "mine")
    assert result.returncode == 0, result
    assert "arg hello" in pilot.output("--image", "mine", "--", "/bin/probe", "hello")


@pytest.mark.parametrize(
    "arguments",
    [
        ("image", "import", "/nowhere"), ("image", "import", "/etc"), ("image", "import", "/etc/passwd"), ("image", "show", "nothing"),
        ("image", "remove", "nothing"), ("image", "nonsense"), ("image", "build", "nonsense"), ("image", "import", "--rootfs", "/etc"),
        ("run", "--image", "nothing"), ("run", "--image", "x", "--rootfs", "/", "--", "ls"), ("run", "--entrypoint", "x", "--", "ls"),
    ],
)  # fmt: skip
def test_refusals(pilot: Pilot, arguments: tuple[str, ...]) -> None:
    result = pilot(*arguments)
    assert (result.returncode, result.stdout) == (125, b"")
    first, second = result.stderr.decode().splitlines()
    assert first.startswith("error: ")
    assert second.startswith("hint: ")


def test_an_image_without_a_program(pilot: Pilot, tmp_path: Path) -> None:
    assert pilot("image", "import", oci.simple(tmp_path / "l", file("a")), "--name", "bare").returncode == 0
    result = pilot.run("--image", "bare")
    assert result.returncode == 125
    assert b"no program" in result.stderr


def test_a_user_that_is_not_there(pilot: Pilot, imported: str) -> None:
    result = pilot.run("--image", imported, "--user", "nobody-here")
    assert result.returncode == 125
    assert b"nobody-here" in result.stderr
