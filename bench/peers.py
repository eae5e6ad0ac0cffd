"""Who is measured: the program itself, our sandbox, and two container runtimes. Each runs the same programs from the same root."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.ground import HOST_TREES
from bench.report import NATIVE, OURS, RUNC, RUNSC

if TYPE_CHECKING:
    from bench.ground import Ground

REPOSITORY = Path(__file__).parent.parent
PATIENCE = 60.0
"""Seconds that anything started here may take."""
ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": "/tmp"}
"""Of shells, so that all run the same programs."""
_numbers = itertools.count(1)


@dataclass
class Launch:
    """A command line that is ready to be started, once."""

    argv: list[str]
    undo: list[str] | None = None
    descriptors: list[int] = field(default_factory=list)
    environment: dict[str, str] | None = None

    def start(self, output: int | None = None, errors: int = 2) -> Running:
        """Starts it without input; `output` is where its standard output goes, nowhere by default, and `errors` where its errors go."""
        null = os.open(os.devnull, os.O_RDWR)
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, null if output is None else output, 1),
            (os.POSIX_SPAWN_DUP2, errors, 2),
        ]
        try:
            pid = os.posix_spawnp(self.argv[0], self.argv, {**os.environ, **(self.environment or {})}, file_actions=actions)
        finally:
            os.close(null)
            self.close()
        return Running(pid, self.undo)

    def close(self) -> None:
        """Lets go of what the start needs."""
        while self.descriptors:
            os.close(self.descriptors.pop())


@dataclass
class Running:
    """A program that was started."""

    pid: int
    undo: list[str] | None
    status: int | None = None

    def wait(self, patience: float = PATIENCE) -> int:
        """Waits for its end; answers its exit status, negative for a signal. Past the patience it is killed."""
        deadline = time.monotonic() + patience
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline = float("inf")
            else:
                time.sleep(0.001)
        return self.status

    def wait_closely(self) -> int:
        """Waits without looking at the clock, for measurements: the program is known to end."""
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def stop(self) -> None:
        """Ends it."""
        if self.undo is not None:
            subprocess.run(self.undo, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PATIENCE)
        if self.status is None:
            os.kill(self.pid, signal.SIGTERM)
            self.wait(5.0)


class Peer:
    """Somebody who runs programs."""

    name = ""

    def __init__(self, ground: Ground) -> None:
        """Looks whether it can run here."""
        self.ground = ground
        self.reason = self.why_not()

    def why_not(self) -> str | None:
        """Why it cannot run here, if it cannot: the text of its cells."""
        answer = self._try()
        if answer is None:
            return None
        line = answer.strip().splitlines()[-1:] or ["no reason given"]
        return f"does not run here ({line[0][:100]})"

    def _try(self) -> str | None:
        """Runs `/bin/true`; answers what it said if that fails."""
        read, write = os.pipe()
        launch = self.launch(["/bin/true"])
        errors = os.memfd_create("errors")
        saved = os.dup(2)
        try:
            os.dup2(errors, 2)
            running = launch.start(write)
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(write)
        status = running.wait(20.0)
        said = os.pread(errors, 4096, 0).decode(errors="replace") or f"exit status {status}"
        os.close(errors)
        os.close(read)
        if status != 0:
            running.stop()
        return said if status != 0 else None

    def launch(self, argv: list[str]) -> Launch:
        """Prepares a start of a program by its path in the root."""
        raise NotImplementedError

    def launch_host(self, argv: list[str]) -> Launch:
        """Prepares a start of one of the host's programs, with [`ENVIRONMENT`] everywhere."""
        raise NotImplementedError

    def launch_shell(self, script: str) -> Launch:
        """Prepares a start of the host's bash."""
        return self.launch_host(["bash", "-c", script])

    def path_of(self, path: str) -> str:
        """A path in the root as the program sees it."""
        return path

    def describe(self) -> str:
        """What was measured, for the table's foot."""
        return self.name


class Native(Peer):
    """The program itself, without any wall."""

    name = NATIVE

    def launch(self, argv: list[str]) -> Launch:
        """The program from the root directory, with the host's libraries, which are the same."""
        return Launch([self.path_of(argv[0]), *argv[1:]])

    def launch_host(self, argv: list[str]) -> Launch:
        """The host's own."""
        return Launch(argv, environment=ENVIRONMENT)

    def path_of(self, path: str) -> str:
        """The path on the host."""
        return str(self.ground.root / path.lstrip("/"))


def our_binary() -> Path | None:
    """Our binary as the package has it, or the one that `CLOUDPILOT_SANDBOX_BINARY` names."""
    if named := os.environ.get("CLOUDPILOT_SANDBOX_BINARY"):
        return Path(named)
    package = importlib.util.find_spec("cloudpilot")
    for place in package.submodule_search_locations or [] if package else []:
        binary = Path(place) / "_bin" / "cloudpilot-sandbox"
        if binary.exists():
            return binary
    return None


class Cloudpilot(Peer):
    """Our sandbox."""

    name = OURS

    def why_not(self) -> str | None:
        """Looks for the binary first."""
        return super().why_not() if our_binary() else "not built (`make build`)"

    def launch(self, argv: list[str]) -> Launch:
        """What the Python package would start, without Python."""
        return self._run(argv, {"PATH": "/bin"}, {"kind": "directory", "path": str(self.ground.root)})

    def launch_host(self, argv: list[str]) -> Launch:
        """With the host's root, as it is by default."""
        return self._run(argv, ENVIRONMENT, {"kind": "host"})

    def _run(self, argv: list[str], environment: dict[str, str], root: dict[str, str]) -> Launch:
        identity = f"bench-{os.getpid()}-{next(_numbers)}"
        config = {"id": identity, "args": argv, "env": environment, "root": root, "state_dir": str(self.ground.path / "state" / identity)}
        descriptor = os.memfd_create("config", 0)
        os.write(descriptor, json.dumps(config).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return Launch([str(our_binary()), "run", "--config-fd", str(descriptor)], descriptors=[descriptor])


class Runtime(Peer):
    """An OCI runtime, with the configuration that it proposes itself."""

    options: tuple[str, ...] = ()

    def why_not(self) -> str | None:
        """It needs root, and its Debian package."""
        if os.geteuid() != 0:
            return "needs root"
        if shutil.which(self.name) is None:
            return f"not installed (Debian package `{self.name}`)"
        return super().why_not()

    def launch(self, argv: list[str]) -> Launch:
        """A bundle for the program, in the foreground."""
        return self._run(argv, str(self.ground.root), {})

    def launch_host(self, argv: list[str]) -> Launch:
        """Over a root that shows the host's programs."""
        changes = {"env": [f"{name}={value}" for name, value in ENVIRONMENT.items()]}
        return self._run(argv, str(self.ground.host_root()), changes)

    def _run(self, argv: list[str], root: str, changes: dict[str, list[str]]) -> Launch:
        bundle = self.ground.path / f"{self.name}-{hashlib.sha256(repr(argv).encode()).hexdigest()[:16]}"
        if not bundle.exists():
            bundle.mkdir()
            subprocess.run([self.name, "spec"], cwd=bundle, check=True, capture_output=True, timeout=PATIENCE)
            file = bundle / "config.json"
            config = json.loads(file.read_text())
            config["process"].update(terminal=False, args=argv, **changes)
            config["root"]["path"] = root
            if changes:
                _show_host(config)
            file.write_text(json.dumps(config))
        identity = f"bench-{os.getpid()}-{next(_numbers)}"
        common = [self.name, "--root", str(self.ground.path / f"{self.name}-state"), *self.options]
        return Launch([*common, "run", "--bundle", str(bundle), identity], [*common, "delete", "--force", identity])

    def describe(self) -> str:
        """Its version and options."""
        answer = subprocess.run([self.name, "--version"], capture_output=True, text=True, check=False, timeout=PATIENCE).stdout
        return " ".join([answer.splitlines()[0] if answer else self.name, *self.options])


CAPABILITIES = {"CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"}
"""What root needs to start a database as somebody else; our sandbox's root has them."""


def _show_host(config: dict[str, Any]) -> None:
    """Lets a bundle see the host's programs, and memory to work in."""
    mounts = [mount for mount in config["mounts"] if mount["destination"] != "/sys/fs/cgroup"]
    for mount in mounts:
        if mount["destination"] == "/dev/shm":
            mount["options"] = [option for option in mount["options"] if not option.startswith("size")]
    mounts += [{"destination": f"/{name}", "type": "bind", "source": f"/{name}", "options": ["rbind", "ro"]} for name in HOST_TREES]
    mounts += [
        {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
        for place in ("/tmp", "/var/log", "/var/lib/nginx")
    ]
    config["mounts"] = mounts
    for kind, names in config["process"]["capabilities"].items():
        if kind != "ambient":
            config["process"]["capabilities"][kind] = sorted({*names, *CAPABILITIES})


class Runc(Runtime):
    """Containers by namespaces; the host's kernel serves the program."""

    name = RUNC


class Runsc(Runtime):
    """gVisor: another user-space kernel."""

    name = RUNSC
    options = ("--platform=ptrace", "--network=none", "--ignore-cgroups")
    """Debian's build knows `ptrace` and `kvm` only; the latter needs a KVM that works."""


def install() -> None:
    """Installs the Debian packages of the peers where they are missing; says so. What cannot be installed is left out of the tables."""
    missing = [name for name in (RUNC, RUNSC) if shutil.which(name) is None]
    if missing and os.geteuid() == 0:
        subprocess.run([str(REPOSITORY / ".ci" / "need"), *missing], check=False, timeout=300)


def all_peers(ground: Ground) -> list[Peer]:
    """Everybody, those who cannot run here included."""
    return [Native(ground), Cloudpilot(ground), Runc(ground), Runsc(ground)]
