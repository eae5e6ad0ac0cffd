"""`Images`: the images of a host. Names lead to roots; a root is known by its layers, so that images with the same ones share it.

::

    names/NAME.json          what a name means
    roots/ID/root            files, shown read-only by sandboxes
    roots/ID/cloudpilot-owners
    roots/ID/layers.json     which layers it is made of; written last but for the rename that makes it appear
    temporary/…              what is being made; leftovers are removed by the next import

A root appears by a rename, complete or not at all, so that any number of processes may import at once. One that no name leads to is removed
once no sandbox shows it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import IO, Any

from cloudpilot.engine import paths, records
from cloudpilot.errors import InvalidArgumentException, NotFoundException, SandboxException
from cloudpilot.images import owners as owners_module
from cloudpilot.images.digests import CheckedReader, of
from cloudpilot.images.image import Image, ImageConfig
from cloudpilot.images.layers import Budget, LayerStream
from cloudpilot.images.layout import FoundImage, Layout
from cloudpilot.images.limits import LARGEST_ROOT, MOST_ENTRIES
from cloudpilot.images.owners import Owners
from cloudpilot.images.unpack import Unpacker, copy_tree

LONGEST_NAME = 200
"""Characters of a name, quoted: it becomes the name of a file."""
_DIRECTORY = "directory:"
UNUSED_PATIENCE = 60.0
"""Seconds that a root stays after it was last asked for: whoever asked may be about to start a sandbox from it."""

Progress = Callable[[str], None]


def default_directory() -> str:
    """Where this user's images are; `CLOUDPILOT_IMAGES` names another place."""
    return os.environ.get("CLOUDPILOT_IMAGES") or os.path.join(paths.data_dir(), "images")


def _silent(_: str) -> None:
    pass


def check_name(name: str) -> str:
    """A name as it is kept: without a tag it has `latest`."""
    if not name or not name.isprintable() or name.startswith(("-", ".", "/")) or len(urllib.parse.quote(name, safe="")) > LONGEST_NAME:
        raise InvalidArgumentException(f"`{name[:100]}` is not a name for an image", "write it like `web` or `registry.example/web:1.2`")
    last = name.rpartition("/")[2]
    return name if ":" in last or "@" in last else f"{name}:latest"


class Images:
    """The images in a directory."""

    def __init__(self, directory: str | None = None) -> None:
        self.directory = os.path.abspath(directory or default_directory())

    def _path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)

    def prepare(self) -> None:
        """Makes the directories that it works in."""
        for name in ("names", "roots", "temporary"):
            # Nobody else looks at what images bring.
            os.makedirs(self._path(name), mode=0o700, exist_ok=True)
        os.chmod(self.directory, 0o700)

    # Looking.

    def get(self, name: str) -> Image:
        """The image of that name; `latest` is the tag where none is given."""
        kept = check_name(name)
        value = _read(self._path("names", _file_name(kept)))
        if value is None:
            raise NotFoundException(
                f"There is no image `{name}`", "`pilot image list` shows those that there are; `pilot image import` adds one"
            )
        root = self._path("roots", value["root"])
        with contextlib.suppress(OSError):
            os.utime(os.path.join(root, "layers.json"))
        if not os.path.isdir(root):
            raise NotFoundException(f"The files of the image `{name}` are gone", "import it again")
        config = ImageConfig(**value["config"])
        return Image(kept, value["digest"], os.path.join(root, "root"), config, value["created"], value["size"])

    def has(self, name: str) -> bool:
        """Whether there is an image of that name."""
        return os.path.exists(self._path("names", _file_name(check_name(name))))

    def all(self) -> list[Image]:
        """All images, by their names."""
        try:
            names = sorted(os.listdir(self._path("names")))
        except FileNotFoundError:
            return []
        found = []
        for each in names:
            # One that is removed meanwhile is not there.
            with contextlib.suppress(NotFoundException):
                found.append(self.get(urllib.parse.unquote(each.removesuffix(".json"))))
        return found

    # Adding.

    def import_layout(self, path: str, tag: str | None = None, name: str | None = None, progress: Progress = _silent) -> Image:
        """Adds an image of an OCI layout (a directory or an archive) or of an archive by `docker save`.

        Args:
            path: Where it is.
            tag: Which of its images; not needed where there is one only.
            name: What to call it here; the tag, or the name of the file, if not given.
            progress: Is told what happens.
        """
        layout = Layout(path)
        try:
            found = layout.find(tag)
            base = os.path.basename(os.path.abspath(path))
            chosen = check_name(name or (tag if tag and ("/" in tag or ":" in tag) else f"{base.removesuffix('.tar')}:{tag or 'latest'}"))
            return self._import(layout, found, chosen, progress)
        finally:
            layout.close()

    def import_root(self, path: str, name: str, config: ImageConfig | None = None, progress: Progress = _silent) -> Image:
        """Adds an image of a root directory, or of an archive of one."""
        from cloudpilot.images.archive import as_layer

        if not os.path.exists(path):
            raise NotFoundException(f"There is no `{path}`", "give a directory that holds a Linux file system, or an archive of one")
        check_name(name)
        self.prepare()
        with self._temporary() as directory:
            progress(f"reading {path}")
            blob = as_layer(path, os.path.join(directory, "layer.tar"))
            return self.add(name, None, [blob], config or ImageConfig(), progress)

    def add(self, name: str, parent: Image | None, layers: list[str], config: ImageConfig, progress: Progress = _silent) -> Image:
        """Adds an image made of another one's files (or none) and layers in files, which are tar archives."""
        kept = check_name(name)
        above = [] if parent is None else self._layers_of(parent)
        digests = [_file_digest(path) for path in layers]

        def read(index: int) -> LayerFile:
            if index < len(above):
                raise NotFoundException("The files of the image that this one stands on are gone", "import it again")
            return LayerFile(layers[index - len(above)], digests[index - len(above)])

        root = self._root([*above, *digests], config.workdir, read, progress)
        return self._name(kept, of(json.dumps([root, config.shown()], sort_keys=True).encode()), root, config, time.time())

    def tag(self, image: Image, name: str, config: ImageConfig | None = None) -> Image:
        """Gives an image another name, and another way to be run if it shall have one."""
        kept = check_name(name)
        root = os.path.basename(os.path.dirname(image.root))
        return self._name(kept, image.digest, root, config or image.config, image.created)

    def remove(self, name: str) -> None:
        """Takes a name away. Files go when nothing uses them any more."""
        try:
            os.unlink(self._path("names", _file_name(check_name(name))))
        except FileNotFoundError:
            raise NotFoundException(f"There is no image `{name}` to remove", "`pilot image list` shows those that there are") from None
        self.collect()

    def _import(self, layout: Layout, found: FoundImage, name: str, progress: Progress) -> Image:
        self.prepare()
        config = ImageConfig.from_oci(found.config.get("config"))

        def read(index: int) -> LayerFile:
            source = found.layers[index]
            return LayerFile(source.path, source.digest, source.size, source.diff_id, layout.files.open)

        root = self._root([each.diff_id for each in found.layers], config.workdir, read, progress)
        return self._name(name, found.digest, root, config, _created(found.config))

    def _name(self, name: str, digest: str, root: str, config: ImageConfig, created: float) -> Image:
        value = {
            "digest": digest,
            "root": root,
            "config": config.shown(),
            "created": created,
            "size": (_read(self._path("roots", root, "layers.json")) or {}).get("size", 0),
        }
        path = self._path("names", _file_name(name))
        temporary = self._path("temporary", f"name-{os.getpid()}-{os.urandom(6).hex()}")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        return self.get(name)

    # Roots.

    def _layers_of(self, image: Image) -> list[str]:
        value = _read(os.path.join(os.path.dirname(image.root), "layers.json"))
        if value is None:
            raise NotFoundException(f"The files of the image `{image.name}` are gone", "import it again")
        return list(value["layers"])

    def _root(self, layers: list[str], workdir: str, read: Callable[[int], LayerFile], progress: Progress) -> str:
        """The root of these layers, made unless it is there. Answers its id."""
        self.prepare()
        if workdir != "/":
            # Programs expect that it is there; so it is a part of the root, as if a layer had it.
            layers = [*layers, f"{_DIRECTORY}{workdir}"]
        root_id = hashlib.sha256(json.dumps(layers).encode()).hexdigest()
        target = self._path("roots", root_id)
        with contextlib.suppress(OSError):
            # Nobody shall remove it now.
            os.utime(os.path.join(target, "layers.json"))
            progress("the files are there already")
            return root_id
        with self._temporary() as directory:
            size = self._unpack(directory, layers, read, progress)
            value = {"layers": layers, "size": size}
            with open(os.path.join(directory, "layers.json"), "w", encoding="utf-8") as file:
                json.dump(value, file)
            try:
                os.rename(directory, target)
            except OSError:
                if not os.path.isdir(target):
                    raise
                # Somebody else was quicker.
        return root_id

    def _unpack(self, directory: str, layers: list[str], read: Callable[[int], LayerFile], progress: Progress) -> int:
        root = os.path.join(directory, "root")
        base, count = self._longest_beginning(layers)
        size = 0
        owners = Owners()
        if base is None:
            os.mkdir(root, 0o755)
        else:
            progress(f"{count} of {len(layers)} layers are there already")
            copy_tree(os.path.join(base, "root"), root)
            owners = Owners.read(os.path.join(base, owners_module.FILE_NAME))
            size = (_read(os.path.join(base, "layers.json")) or {}).get("size", 0)
        budget = Budget(LARGEST_ROOT - size, MOST_ENTRIES)
        unpacker = Unpacker(root, owners)
        try:
            for index in range(count, len(layers)):
                if layers[index].startswith(_DIRECTORY):
                    unpacker.make_directory(layers[index].removeprefix(_DIRECTORY))
                    continue
                progress(f"layer {index + 1} of {len(layers)}")
                read(index).apply(unpacker, budget)
            if unpacker.devices_left_out:
                progress(f"{unpacker.devices_left_out} device nodes were left out: sandboxes have their own `/dev`")
        finally:
            unpacker.close()
        owners.write(os.path.join(directory, owners_module.FILE_NAME))
        return LARGEST_ROOT - budget.size

    def _longest_beginning(self, layers: list[str]) -> tuple[str | None, int]:
        """The root that has the most of these layers, from the first one on, and how many."""
        best: tuple[str | None, int] = None, 0
        for each in os.listdir(self._path("roots")):
            value = _read(self._path("roots", each, "layers.json"))
            if value is None:
                continue
            count = len(value["layers"])
            if best[1] < count <= len(layers) and layers[:count] == value["layers"]:
                best = self._path("roots", each), count
        return best

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[str]:
        """A directory to make something in, which is removed unless it was renamed. Those whose makers have died are removed as well."""
        above = self._path("temporary")
        for each in os.listdir(above):
            _remove_unless_locked(os.path.join(above, each))
        directory = tempfile.mkdtemp(dir=above)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield directory
        finally:
            os.close(lock)
            shutil.rmtree(directory, ignore_errors=True)

    def collect(self) -> int:
        """Removes roots that no name leads to and no sandbox shows. Answers how many."""
        used = {record.root for record in records.running()}
        values = (_read(self._path("names", each)) for each in os.listdir(self._path("names")))
        named = {value["root"] for value in values if value is not None}
        removed = 0
        for each in os.listdir(self._path("roots")):
            directory = self._path("roots", each)
            try:
                age = time.time() - os.stat(os.path.join(directory, "layers.json")).st_mtime
            except OSError:
                age = 0.0
            if each in named or os.path.join(directory, "root") in used or 0 <= age < UNUSED_PATIENCE:
                continue
            # Gone at once for everybody who looks, then piece by piece.
            doomed = self._path("temporary", f"removed-{each}-{os.urandom(4).hex()}")
            with contextlib.suppress(OSError):
                os.rename(directory, doomed)
                shutil.rmtree(doomed, ignore_errors=True)
                removed += 1
        return removed


class LayerFile:
    """A layer's blob."""

    def __init__(
        self, path: str, digest: str, size: int | None = None, diff_id: str | None = None, opener: Callable[[str], Any] | None = None
    ) -> None:
        self._path = path
        self._digest = digest
        self._size = size
        self._diff_id = diff_id or digest
        self._open = opener or _open

    def apply(self, unpacker: Unpacker, budget: Budget) -> None:
        """Unpacks it."""
        with self._open(self._path) as file:
            if self._size is None and self._digest == self._diff_id:
                # Known by what it unpacks to only: what it is packed in has no name to be checked by.
                blob: Any = _Unchecked(file)
            else:
                blob = CheckedReader(file, self._digest, self._size, "A layer")
            unpacker.apply(LayerStream(blob, self._diff_id, budget), budget)


def _open(path: str) -> IO[bytes]:
    return open(path, "rb")


class _Unchecked:
    def __init__(self, file: Any) -> None:
        self.read = file.read

    def finish(self) -> None:
        pass


def _file_name(name: str) -> str:
    return urllib.parse.quote(name, safe="") + ".json"


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            value: dict[str, Any] = json.load(file)
            return value
    except FileNotFoundError:
        return None
    except ValueError:
        raise SandboxException(f"`{path}` is damaged", "remove it, and import the image again") from None


def _created(config: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(config.get("created"))).timestamp()
    except (ValueError, OverflowError):
        return time.time()


def _remove_unless_locked(path: str) -> None:
    try:
        # A new one is locked only a moment after it is made.
        if time.time() - os.stat(path).st_mtime < UNUSED_PATIENCE:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass  # Somebody works in it.
    finally:
        os.close(descriptor)
