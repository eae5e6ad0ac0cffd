"""Images: layouts read and checked, layers applied as the specification has it, and attacks that end at the root."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import threading
from pathlib import Path

import oci
import pytest
from oci import Builder, directory, file, hard_link, symlink, tar

from cloudpilot.errors import InvalidArgumentException, LimitException, NotFoundException, SandboxException
from cloudpilot.images import layers, limits, store
from cloudpilot.images.image import ImageConfig
from cloudpilot.images.owners import FILE_NAME, Owner, Owners
from cloudpilot.images.store import Images


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(str(tmp_path / "store"))


def found(root: str) -> dict[str, bytes | str | None]:
    """What a root holds: contents of files, targets of links, none for directories."""
    result: dict[str, bytes | str | None] = {}
    for path in sorted(Path(root).rglob("*")):
        name = str(path.relative_to(root))
        result[name] = os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return result


def unpacked(images: Images, tmp_path: Path, *layers: bytes, **more: object) -> dict[str, bytes | str | None]:
    path = tmp_path / "layout"
    Builder(path).image(*layers, **more)  # type: ignore[arg-type]
    return found(images.import_layout(str(path)).root)


def nothing_left(images: Images) -> bool:
    """Whether a failed import left nothing behind."""
    return not [path for each in ("roots", "temporary", "names") for path in Path(images.directory, each).glob("*")]


# What honest layers say.


@pytest.mark.parametrize("compression", ["none", "gzip", "gzip in members", "zstd"])
def test_compressions(images: Images, tmp_path: Path, compression: str) -> None:
    def compress(data: bytes) -> bytes:
        if compression == "zstd":
            from cloudpilot.images.layers import importlib

            try:
                return importlib.import_module("compression.zstd").compress(data)  # type: ignore[no-any-return]
            except ImportError:
                return importlib.import_module("backports.zstd").compress(data)  # type: ignore[no-any-return]
        half = len(data) // 2
        return {"none": data, "gzip": gzip.compress(data)}.get(compression) or gzip.compress(data[:half]) + gzip.compress(data[half:])

    contents = os.urandom(700_001)
    assert unpacked(images, tmp_path, tar([file("a", contents)]), compress=compress) == {"a": contents}


def test_whiteouts(images: Images, tmp_path: Path) -> None:
    lower = tar(
        [directory("a"), file("a/1", b"1"), file("a/2", b"2"), directory("b"), file("b/1"), directory("b/c"), file("b/c/1"), file("d")]
    )
    # Siblings come before the opaque mark as well as after it, and what comes along is never hidden.
    upper = tar(
        [file("a/.wh.1"), file("a/3", b"3"), file("b/2"), file("b/.wh..wh..opq"), file("b/c/3"), file(".wh.d"), file(".wh.nothing")]
    )
    assert unpacked(images, tmp_path, lower, upper) == {
        "a": None, "a/2": b"2", "a/3": b"3", "b": None, "b/2": b"", "b/c": None, "b/c/3": b"",
    }  # fmt: skip


def test_a_whiteout_hides_lower_layers_only(images: Images, tmp_path: Path) -> None:
    assert unpacked(images, tmp_path, tar([file("a", b"old")]), tar([file("a", b"new"), file(".wh.a")])) == {"a": b"new"}


def test_later_layers_replace(images: Images, tmp_path: Path) -> None:
    lower = tar([directory("a"), file("a/1", b"1"), file("b", b"b"), symlink("c", "b"), directory("d"), file("d/1", b"kept")])
    upper = tar([file("a", b"a file"), directory("b"), file("c", b"a file"), directory("d", mode=0o700)])
    assert unpacked(images, tmp_path, lower, upper) == {"a": b"a file", "b": None, "c": b"a file", "d": None, "d/1": b"kept"}


def test_links_of_lower_layers_are_followed_inside(images: Images, tmp_path: Path) -> None:
    lower = tar([directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib"), symlink("up", "../../usr")])
    upper = tar([file("lib/1", b"1"), file("abs/2", b"2"), file("up/lib/3", b"3"), hard_link("lib/4", "abs/1")])
    contents = unpacked(images, tmp_path, lower, upper)
    assert {name: data for name, data in contents.items() if name.startswith("usr/lib/")} == {
        "usr/lib/1": b"1", "usr/lib/2": b"2", "usr/lib/3": b"3", "usr/lib/4": b"1",
    }  # fmt: skip
    assert contents["lib"] == "usr/lib"


def test_owners_and_modes_are_in_the_table(images: Images, tmp_path: Path) -> None:
    lower = tar(
        [
            file("etc/shadow", b"", mode=0o640, gid=42),
            file("bin/su", b"", mode=0o4755),
            file("home/me/x", uid=1000, gid=1000),
            file("plain"),
        ]
    )
    upper = tar([hard_link("bin/su2", "bin/su"), file("etc/shadow", b"", mode=0o644), symlink("l", "x", uid=5, gid=6)])
    path = tmp_path / "layout"
    Builder(path).image(lower, upper)
    root = images.import_layout(str(path)).root
    owners = Owners.read(str(Path(root).parent / FILE_NAME))
    assert owners.get(b"bin/su") == owners.get(b"bin/su2") == Owner(0o4755, 0, 0)
    assert owners.get(b"home/me/x") == Owner(0o644, 1000, 1000)
    assert owners.get(b"l") == Owner(0o777, 5, 6)
    assert owners.get(b"etc/shadow") is owners.get(b"plain") is None
    for each in Path(root).rglob("*"):
        if not each.is_symlink():
            assert each.stat().st_mode & 0o7777 == (0o755 if each.is_dir() or each.name.startswith("su") else 0o644), each


def test_configuration(images: Images, tmp_path: Path) -> None:
    passwd = b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"
    config = {
        "Entrypoint": ["/init"], "Cmd": ["serve"], "Env": ["A=1", "B=x=y"], "WorkingDir": "/srv/app", "User": "web",
        "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT", "Labels": {"k": "v"},
    }  # fmt: skip
    path = oci.simple(tmp_path / "l", file("etc/passwd", passwd), file("etc/group", b"staff:x:50:\n"), config=config, tag="registry/web:1")
    image = images.import_layout(str(path), "registry/web:1")
    assert image.name == "registry/web:1"
    assert image.config == ImageConfig(
        ["/init"], ["serve"], {"A": "1", "B": "x=y"}, "/srv/app", "web", ["80/tcp"], "SIGQUIT", {"k": "v"}
    )  # fmt: skip
    assert (image.user().uid, image.user().gid, image.user().home) == (33, 34, "/srv")
    assert (image.user("web:staff").gid, image.user("7").gid, image.user("7:9").gid) == (50, 0, 9)
    with pytest.raises(NotFoundException):
        image.user("nobody-here")
    assert Path(image.root, "srv/app").is_dir()
    assert image.config.program([]) == ["/init", "serve"]
    assert image.config.program(["x"]) == ["/init", "x"]
    assert image.config.program(["x"], ["/bin/sh"]) == ["/bin/sh", "x"]
    assert image.config.program([], ["/bin/sh"]) == ["/bin/sh"]


# Layouts.


def test_nested_indexes_and_machines(images: Images, tmp_path: Path) -> None:
    builder = Builder(tmp_path / "l")
    kinds = {"arm64": b"arm", "amd64": b"intel"}
    inner = []
    for machine, data in kinds.items():
        platform = {"os": "linux", "architecture": machine}
        inner.append({**builder.manifest([tar([file("which", data)])], architecture=machine), "platform": platform})
    inner.append(
        {
            **inner[0],
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }
    )
    index = builder.document({"schemaVersion": 2, "manifests": inner}, oci.INDEX)
    outer = builder.document({"schemaVersion": 2, "manifests": [index]}, oci.INDEX)
    builder.manifests.append({**outer, "annotations": {"org.opencontainers.image.ref.name": "v1"}})
    builder.finish()
    assert found(images.import_layout(str(tmp_path / "l"), "v1").root) == {"which": b"intel"}
    with pytest.raises(NotFoundException, match="v1"):
        images.import_layout(str(tmp_path / "l"), "v2")


def test_another_machine_is_refused(images: Images, tmp_path: Path) -> None:
    path = oci.simple(tmp_path / "l", file("a"), architecture="riscv64")
    with pytest.raises(NotFoundException, match="riscv64"):
        images.import_layout(str(path))


def archived(source: Path, target: Path) -> Path:
    with tarfile.open(target, "w") as archive:
        archive.add(source, ".")
    return target


def test_archive(images: Images, tmp_path: Path) -> None:
    path = archived(oci.simple(tmp_path / "l", file("a", b"x")), tmp_path / "web.tar")
    image = images.import_layout(str(path))
    assert (image.name, found(image.root)) == ("web:latest", {"a": b"x"})


def test_docker_save(images: Images, tmp_path: Path) -> None:
    layer = tar([file("a", b"x")])
    builder = Builder(tmp_path / "l")
    manifest = json.loads((tmp_path / "l/blobs/sha256" / builder.manifest([layer])["digest"][7:]).read_text())
    config = (tmp_path / "l/blobs/sha256" / manifest["config"]["digest"][7:]).read_bytes()
    saved = [{"Config": "c.json", "RepoTags": ["web:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}]
    twice = {**json.loads(config), "rootfs": {"type": "layers", "diff_ids": json.loads(config)["rootfs"]["diff_ids"] * 2}}
    link = symlink("2/layer.tar", "../1/layer.tar")
    data = tar(
        [file("manifest.json", json.dumps(saved).encode()), file("c.json", json.dumps(twice).encode()), file("1/layer.tar", layer), link]
    )
    (tmp_path / "saved.tar").write_bytes(data)
    image = images.import_layout(str(tmp_path / "saved.tar"), "web:1")
    assert (image.name, found(image.root)) == ("web:1", {"a": b"x"})


@pytest.mark.parametrize("what", ["manifest", "config", "layer", "layer's end", "diff id", "size"])
def test_damage_is_found(images: Images, tmp_path: Path, what: str) -> None:
    path = tmp_path / "l"
    builder = Builder(path)
    blobs = path / "blobs" / "sha256"
    descriptor = builder.image(tar([file("a", b"x" * 1000)]))
    manifest = json.loads((blobs / descriptor["digest"][7:]).read_text())
    if what in ("layer", "layer's end"):
        target = blobs / manifest["layers"][0]["digest"][7:]
        data = target.read_bytes()
        target.write_bytes(data + b"\0" if what == "layer's end" else gzip.compress(tar([file("a", b"y" * 1000)])))
    elif what == "diff id":
        config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
        config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
        manifest["config"] = builder.document(config, oci.CONFIG)
        builder.manifests = [builder.document(manifest, oci.MANIFEST)]
    elif what == "size":
        manifest["layers"][0]["size"] -= 1
        builder.manifests = [builder.document(manifest, oci.MANIFEST)]
    else:
        target = blobs / (descriptor if what == "manifest" else manifest["config"])["digest"][7:]
        target.write_bytes(target.read_bytes() + b" ")
    builder.finish()
    with pytest.raises(InvalidArgumentException, match="digest"):
        images.import_layout(str(path))
    assert images.all() == []
    assert nothing_left(images)


@pytest.mark.parametrize(
    "digest", ["sha256:../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 32, "", None, 5, "sha256:" + "0" * 63 + "\n"]
)  # fmt: skip
def test_digests_are_no_paths(images: Images, tmp_path: Path, digest: object) -> None:
    builder = Builder(tmp_path / "l")
    builder.image(tar([file("a")]))
    builder.manifests = [{**builder.manifests[0], "digest": digest}]
    builder.finish()
    with pytest.raises(InvalidArgumentException, match="digest"):
        images.import_layout(str(tmp_path / "l"))


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"manifests": 5}', b"[" * 100_000, b"\xff\xfe", b'{"manifests": [{"digest": {}}]}'])
def test_malformed_documents(images: Images, tmp_path: Path, text: bytes) -> None:
    path = oci.simple(tmp_path / "l", file("a"))
    (path / "index.json").write_bytes(text)
    with pytest.raises(SandboxException):
        images.import_layout(str(path))


def test_bottomless_index(images: Images, tmp_path: Path) -> None:
    builder = Builder(tmp_path / "l")
    inner = builder.manifest([tar([file("a")])])
    for _ in range(limits.DEEPEST_INDEX + 1):
        inner = builder.document({"schemaVersion": 2, "manifests": [inner]}, oci.INDEX)
    builder.manifests = [inner]
    builder.finish()
    with pytest.raises(LimitException):
        images.import_layout(str(tmp_path / "l"))


# Attacks.


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that no layer may change."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "victim").write_bytes(b"untouched")
    return path


def attacks(outside: str) -> dict[str, list[bytes]]:
    """Layers that try to leave the root."""
    up = "../" * 30
    return {
        "dots": [tar([file(f"{up}{outside}/new", b"x")])],
        "dots in the middle": [tar([directory("a"), file(f"a/{up}{outside}/new", b"x")])],
        "absolute": [tar([file(f"{outside}/victim", b"x")])],
        "through a link": [tar([symlink("l", outside), file("l/victim", b"x"), file("l/new", b"x")])],
        "through a relative link": [tar([symlink("l", f"{up}{outside}"), file("l/victim", b"x")])],
        "through two links": [tar([symlink("a", outside), symlink("b", "a"), file("b/victim", b"x")])],
        "through a link of a lower layer": [tar([symlink("l", outside)]), tar([file("l/victim", b"x")])],
        "over a link": [tar([symlink("l", f"{outside}/victim"), file("l", b"x")])],
        "a directory over a link": [tar([symlink("l", outside), directory("l", mode=0o777), file("l/new", b"x")])],
        "a hard link": [tar([hard_link("h", f"{outside}/victim"), file("h", b"x")])],
        "a hard link with dots": [tar([hard_link("h", f"{up}{outside}/victim")])],
        "a hard link through a link": [tar([symlink("l", outside), hard_link("h", "l/victim")])],
        "a hard link to a link": [tar([symlink("l", f"{outside}/victim"), hard_link("h", "l"), file("h", b"x")])],
        "a hard link to a directory": [tar([directory("d"), hard_link("h", "d")])],
        "a whiteout with dots": [tar([file("a/.wh...")])],
        "a whiteout of nothing": [tar([file("a/.wh.")])],
        "a whiteout through a link": [tar([symlink("l", outside)]), tar([file("l/.wh.victim")])],
        "an opaque mark through a link": [tar([symlink("l", outside)]), tar([file("l/.wh..wh..opq")])],
        "removal through a link": [tar([directory("d"), symlink("d/l", outside)]), tar([file("d", b"x")])],
        "a link to proc": [tar([symlink("l", "/proc/self/root"), file(f"l{outside}/victim", b"x")])],
        "a deep name": [tar([file("a/" * 3000 + "x")])],
        "a long name": [tar([file("a" * 256)])],
        "links in a circle": [tar([symlink("a", "b"), symlink("b", "a"), file("a/x")])],
        "a file as a directory": [tar([file("a", b"x"), file("a/x")])],
    }


@pytest.mark.parametrize("name", attacks(""))
def test_attacks_end_at_the_root(images: Images, tmp_path: Path, outside: Path, name: str) -> None:
    Builder(tmp_path / "layout").image(*attacks(str(outside))[name])
    before = outside.stat()
    hint: str | None = "none was needed"
    try:
        found(images.import_layout(str(tmp_path / "layout")).root)
    except SandboxException as error:
        hint = error.hint
    assert hint
    assert found(str(outside)) == {"victim": b"untouched"}
    assert (outside / "victim").stat().st_nlink == 1
    assert (outside.stat().st_mode, outside.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_devices_are_left_out(images: Images, tmp_path: Path) -> None:
    entries = [
        ("dev/sda", {"type": tarfile.BLKTYPE, "devmajor": 8}),
        ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        file("a"),
    ]
    said: list[str] = []
    Builder(tmp_path / "l").image(tar([*entries, ("pipe", {"type": tarfile.FIFOTYPE})]))
    image = images.import_layout(str(tmp_path / "l"), progress=said.append)
    assert sorted(os.listdir(image.root)) == ["a", "dev", "pipe"]
    assert os.listdir(Path(image.root, "dev")) == []
    assert any("2 device nodes" in line for line in said)


def test_a_shared_file_is_never_written_to(images: Images, tmp_path: Path) -> None:
    lower = tar([file("a", b"first"), directory("d"), file("d/x", b"x")])
    builder = Builder(tmp_path / "l")
    builder.image(lower, tag="one")
    builder.image(lower, tar([file("a", b"second"), file("d/.wh.x")]), tag="two")
    one = images.import_layout(str(tmp_path / "l"), "one")
    two = images.import_layout(str(tmp_path / "l"), "two")
    assert found(one.root) == {"a": b"first", "d": None, "d/x": b"x"}
    assert found(two.root) == {"a": b"second", "d": None}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_bomb(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    monkeypatch.setattr(store, "LARGEST_ROOT", 10 << 20)
    data = tar([file("zeros", bytes(64 << 20))])
    zstd = layers.importlib.import_module("backports.zstd") if compression == "zstd" else gzip
    Builder(tmp_path / "l").image(data, compress=zstd.compress)
    with pytest.raises(LimitException):
        images.import_layout(str(tmp_path / "l"))
    assert nothing_left(images)


def test_bomb_of_entries(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_ENTRIES", 100)
    Builder(tmp_path / "l").image(tar(directory(f"d{number}") for number in range(101)))
    with pytest.raises(LimitException):
        images.import_layout(str(tmp_path / "l"))


def _sparse(size: int) -> bytes:
    """A file of GNU's format 1.0 that is all hole."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("GNUSparseFile.0/hole")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "hole", "GNU.sparse.realsize": str(size)}
        map_ = b"1\n%d\n0\n" % size
        member.size = 512
        archive.addfile(member, io.BytesIO(map_.ljust(512, b"\0")))
    return buffer.getvalue()


def test_holes_count(images: Images, tmp_path: Path) -> None:
    Builder(tmp_path / "l").image(_sparse(1 << 20), tag="fits")
    image = images.import_layout(str(tmp_path / "l"), "fits")
    assert Path(image.root, "hole").read_bytes() == bytes(1 << 20)
    Builder(tmp_path / "m").image(_sparse(limits.LARGEST_ROOT + 1), tag="bomb")
    with pytest.raises(LimitException):
        images.import_layout(str(tmp_path / "m"), "bomb")


def test_a_header_as_long_as_memory(images: Images, tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    Builder(tmp_path / "l").image(header.tobuf(tarfile.GNU_FORMAT) + b"5 a=b" * 100)
    with pytest.raises(LimitException):
        images.import_layout(str(tmp_path / "l"))


@pytest.mark.parametrize("cut", [100, 600, 1100, 2_500])
def test_cut_off_archives(images: Images, tmp_path: Path, cut: int) -> None:
    data = tar([file("a", b"x" * 1000), file("b", b"y" * 1000)])[:cut]
    Builder(tmp_path / "l").image(data)
    with pytest.raises(InvalidArgumentException):
        images.import_layout(str(tmp_path / "l"))


def test_garbage_in_the_middle(images: Images, tmp_path: Path) -> None:
    data = bytearray(tar([file("a", b"x"), file("b", b"y")]))
    data[1024:1100] = b"\xff" * 76
    Builder(tmp_path / "l").image(bytes(data))
    with pytest.raises(InvalidArgumentException, match="middle"):
        images.import_layout(str(tmp_path / "l"))


# The store.


def test_many_imports_at_once(tmp_path: Path) -> None:
    lower = tar([file(f"f{number}", b"x") for number in range(200)])
    builder = Builder(tmp_path / "l")
    for number in range(4):
        builder.image(lower, tar([file("own", str(number).encode())]), tag=f"t{number}")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                image = Images(str(tmp_path / "store")).import_layout(str(tmp_path / "l"), f"t{number % 4}")
                assert Path(image.root, "own").read_bytes() == str(number % 4).encode()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not failures
    images = Images(str(tmp_path / "store"))
    assert len(images.all()) == 4
    assert os.listdir(images.directory + "/temporary") == []


def test_removal(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "UNUSED_PATIENCE", 0.0)
    path = oci.simple(tmp_path / "l", file("a"))
    images.import_layout(str(path), name="one")
    image = images.import_layout(str(path), name="two")
    images.remove("one")
    assert Path(image.root).is_dir()
    with pytest.raises(NotFoundException):
        images.get("one")
    images.remove("two")
    assert os.listdir(images.directory + "/roots") == []
    with pytest.raises(NotFoundException):
        images.remove("two")


@pytest.mark.parametrize("name", ["", "-x", "../x", ".", "/x", "a\nb", "x" * 300])
def test_names(images: Images, name: str) -> None:
    with pytest.raises(InvalidArgumentException):
        images.get(name)


def test_import_of_a_root(images: Images, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/tool").write_bytes(b"#!/bin/sh\n")
    (root / "bin/tool").chmod(0o755)
    (root / "proc").mkdir()
    (root / "proc/1").mkdir()
    (root / "link").symlink_to("/etc/passwd")
    image = images.import_root(str(root), "mine", ImageConfig(command=["/bin/tool"]))
    assert found(image.root) == {"bin": None, "bin/tool": b"#!/bin/sh\n", "proc": None, "link": "/etc/passwd"}
    assert images.get("mine:latest").config.command == ["/bin/tool"]
