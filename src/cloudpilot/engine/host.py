"""What this host can do, found by trying: each check does what the engine would do, and undoes it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cloudpilot.engine import config, paths
from cloudpilot.errors import SandboxException

RUN_TIMEOUT = 10.0
"""Seconds for `/bin/true` in a sandbox; it takes milliseconds."""

_CLONE_NEWUSER = 0x10000000
_SYS_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION = 1
_PR_SET_NO_NEW_PRIVS = 38
_SYS_SECCOMP = 317
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_RET_ALLOW = 0x7FFF0000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the host can do or not.

    Attributes:
        name: What was tried.
        ok: Whether it works.
        needed: Whether the default, `pilot run PROGRAM`, needs it.
        reason: What was found.
        remedy: What to do, where it does not work.
    """

    name: str
    ok: bool
    needed: bool
    reason: str
    remedy: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def checks() -> list[Check]:
    """Tries everything."""
    tries: list[Callable[[], Check]] = [
        _platform, _sandbox, _state, _user_namespaces, _seccomp, _landlock, _memfd, _overcommit, _cgroups, _kvm,
    ]  # fmt: skip
    return [each() for each in tries]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _in_child(action: Callable[[], int]) -> int:
    """Runs something in a child process, which it may leave in any state; answers 0 or an error number."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 255
        try:
            status = action()
        finally:
            os._exit(status & 255)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _platform() -> Check:
    machine, system = platform.machine(), platform.system()
    ok = (machine, system) == ("x86_64", "Linux")
    return Check("platform", ok, True, f"{system} {platform.release()} on {machine}", None if ok else "use Linux on x86-64")


def _sandbox() -> Check:
    try:
        binary = paths.binary()
        sandbox_id = config.new_id()
        settings = {
            "id": sandbox_id,
            "args": ["/bin/true"],
            "env": config.default_env(0),
            "root": {"kind": "host"},
            "timeout_ms": int(RUN_TIMEOUT * 1000),
            "state_dir": paths.state_dir(sandbox_id),
        }
        descriptor = config.as_descriptor(settings)
    except SandboxException as error:
        return Check("sandbox", False, True, error.message, error.hint)
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            [binary, "run", "--config-fd", str(descriptor)],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=2 * RUN_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("sandbox", False, True, f"The sandbox binary does not run: {error}", "install the package again")
    finally:
        os.close(descriptor)
    taken = (time.perf_counter() - begin) * 1000
    if done.returncode == 0:
        return Check("sandbox", True, True, f"`/bin/true` ran in {taken:.1f} ms")
    lines = done.stderr.strip().splitlines()
    said = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), None)
    hint = next((line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")), "the lines below may tell why")
    return Check("sandbox", False, True, said or f"`/bin/true` ended with status {done.returncode}", hint)


def _state() -> Check:
    root = paths.state_root()
    probe = os.path.join(root, f".doctor-{os.getpid()}")
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        os.mkdir(probe)
        os.rmdir(probe)
    except OSError as error:
        return Check("state", False, True, f"`{root}`: {error.strerror}", "let XDG_RUNTIME_DIR name a directory of your own with space")
    return Check("state", True, True, f"sandboxes have their directories in `{root}`")


def _user_namespaces() -> Check:
    needed = os.geteuid() != 0
    error = _in_child(lambda: 0 if _libc().unshare(_CLONE_NEWUSER) == 0 else ctypes.get_errno())
    if error == 0:
        return Check("user namespaces", True, needed, "one was made")
    for path, wrong, remedy in (
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ):
        if _read(path) == wrong:
            return Check("user namespaces", False, needed, f"`{path}` is {wrong}", f"as root: `{remedy}`, or run `pilot` as root")
    return Check(
        "user namespaces", False, needed, f"unshare: {os.strerror(error)}", "let the container or service allow them, or run as root"
    )


def _seccomp() -> Check:
    class Instruction(ctypes.Structure):
        _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction)))

    def install() -> int:
        allow = (Instruction * 1)(Instruction(0x06, 0, 0, _SECCOMP_RET_ALLOW))
        program = Program(1, allow)
        libc = _libc()
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program)):
            return ctypes.get_errno()
        return 0

    error = _in_child(install)
    if error == 0:
        return Check("seccomp", True, True, "a filter was installed")
    return Check("seccomp", False, True, f"seccomp: {os.strerror(error)}", "use a host kernel with CONFIG_SECCOMP_FILTER")


def _landlock() -> Check:
    version = _libc().syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version > 0:
        return Check("landlock", True, False, f"version {version}")
    reason = os.strerror(ctypes.get_errno())
    remedy = "the other walls of the jail hold without it; to have it, boot a kernel from 5.13 on with `lsm=landlock,…`"
    return Check("landlock", False, False, reason, remedy)


def _memfd() -> Check:
    try:
        descriptor = os.memfd_create("doctor")
        try:
            os.ftruncate(descriptor, 1 << 40)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Check("memory files", False, True, f"memfd: {error.strerror}", "raise `ulimit -f`, or use a later host kernel")
    return Check("memory files", True, True, "a sparse one of 1 TiB was made")


def _overcommit() -> Check:
    mode = _read("/proc/sys/vm/overcommit_memory")
    if mode == "2":
        remedy = "as root: `sysctl vm.overcommit_memory=0`, if starts fail for lack of memory"
        return Check("overcommit", False, False, "the host promises no more memory than it has (mode 2)", remedy)
    return Check("overcommit", True, False, f"mode {mode}")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def _cgroups() -> Check:
    """Limits of the host's own; those of guest memory and processes hold without them."""
    found, refused = [], []
    for label, directory in _own_groups():
        probe = os.path.join(directory, f"cloudpilot-doctor-{os.getpid()}")
        try:
            os.mkdir(probe)
            os.rmdir(probe)
            found.append(label)
        except OSError as error:
            refused.append(f"{label}: {error.strerror}")
    if found:
        return Check("control groups", True, False, f"writable: {', '.join(found)}")
    remedy = "`--cpus` needs them: run as root, or under `systemd-run --user --scope -p Delegate=yes`"
    return Check("control groups", False, False, "; ".join(refused) or "none are mounted", remedy)


def _own_groups() -> list[tuple[str, str]]:
    groups = {}
    for line in (_read("/proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        groups[controllers] = group
    result = []
    for line in (_read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            label, group = "version 2", groups.get("", "/")
        elif kind == "cgroup" and (controller := next((name for name in ("memory", "cpu", "pids") if name in options.split(",")), None)):
            label = controller
            group = next((group for names, group in groups.items() if controller in names.split(",")), "/")
        else:
            continue
        inside = group.removeprefix(root) if root != "/" and group.startswith(root) else group
        result.append((label, os.path.join(point, inside.lstrip("/"))))
    return result


_KVM_PATIENCE = 2
"""Seconds for the probe's few thousand instructions."""
_SLOWEST_LOOP = 0.005
"""Seconds for 20 000 turns of a loop. Native code needs 10 to 20 microseconds, an interpreter tens of milliseconds."""


def _kvm() -> Check:
    """Makes a machine and lets it run: `/dev/kvm` may be there and unable to run an operating system."""
    name = "virtualization"
    remedy = "nothing needs it yet: sandboxes do without; to have it, use a host with VT-x or SVM, or nested virtualization switched on"
    if not os.path.exists("/dev/kvm"):
        return Check(name, False, False, "there is no `/dev/kvm`", remedy)
    reader, writer = os.pipe()

    def probe() -> int:
        signal.alarm(_KVM_PATIENCE)
        os.write(writer, _run_machine().encode())
        return 0

    _in_child(probe)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        said = file.read() or "the probe did not end"
    verdict, _, reason = said.partition(":")
    return Check(name, verdict == "ok", False, reason or said, None if verdict == "ok" else remedy)


def _run_machine() -> str:
    """Runs a loop and one rarer instruction on a virtual CPU; answers `ok:` or `bad:` and what was found."""
    import fcntl
    import mmap
    import struct

    create_vm, create_vcpu, set_memory = 0xAE01, 0xAE41, 0x4020AE46
    mmap_size, run, get_sregs, set_sregs, set_regs = 0xAE04, 0xAE80, 0x8138AE83, 0x4138AE84, 0x4090AE82
    exit_halt, exit_internal_error = 5, 17
    # mov ecx, 20000; dec ecx; jnz -4; popcnt ax, cx; hlt -- in real mode
    code = bytes.fromhex("66b9204e0000664975fcf30fb8c1f4")
    try:
        kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        machine = fcntl.ioctl(kvm, create_vm, 0)
        memory = mmap.mmap(-1, 4096)
        memory[: len(code)] = code
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        fcntl.ioctl(machine, set_memory, struct.pack("=IIQQQ", 0, 0, 0x1000, 4096, address))
        vcpu = fcntl.ioctl(machine, create_vcpu, 0)
        state = mmap.mmap(vcpu, fcntl.ioctl(kvm, mmap_size, 0))
        sregs = bytearray(312)
        fcntl.ioctl(vcpu, get_sregs, sregs)
        struct.pack_into("=QIH", sregs, 0, 0, 0xFFFF, 0)
        fcntl.ioctl(vcpu, set_sregs, sregs)
        regs = bytearray(144)
        struct.pack_into("=QQ", regs, 128, 0x1000, 2)
        fcntl.ioctl(vcpu, set_regs, regs)
        begin = time.perf_counter()
        fcntl.ioctl(vcpu, run, 0)
        taken = time.perf_counter() - begin
    except OSError as error:
        return f"bad:`/dev/kvm`: {error.strerror}"
    reason = struct.unpack_from("=I", state, 8)[0]
    if reason == exit_internal_error:
        return "bad:`/dev/kvm` makes machines, but an interpreter without common instructions runs their kernels"
    if reason != exit_halt:
        return f"bad:`/dev/kvm` makes machines, but the probe ended with reason {reason}"
    if taken > _SLOWEST_LOOP:
        return f"bad:`/dev/kvm` makes machines, but runs their kernels {taken * 1e6 / 20:.0f} ns a loop, which is interpreted"
    return f"ok:a machine was made and ran ({taken * 1e6:.0f} us)"
