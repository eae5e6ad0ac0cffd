"""OCI image layouts, as directories or archives, and archives of `docker save`: where an image's blobs are, and which image is meant."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from dataclasses import dataclass
from typing import IO, Any, Protocol, Self

from cloudpilot.errors import InvalidArgumentException, LimitException, NotFoundException
from cloudpilot.images import digests
from cloudpilot.images.limits import DEEPEST_INDEX, LARGEST_DOCUMENT, LARGEST_HEADER, MOST_ARCHIVE_MEMBERS, MOST_LAYERS

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_REFERENCE = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
ARCHITECTURE = "amd64"


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A layer as a manifest names it."""

    path: str
    digest: str
    size: int | None
    diff_id: str


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image in a layout, before its layers are read."""

    digest: str
    config: dict[str, Any]
    layers: list[LayerSource]


class Files(Protocol):
    """Files of a layout."""

    def open(self, path: str) -> IO[bytes]:
        """A file, by its path in the layout."""

    def close(self) -> None:
        """Lets go of them."""


class _Directory:
    def __init__(self, path: str) -> None:
        self._path = path

    def open(self, path: str) -> IO[bytes]:
        try:
            # Not blocking: it may be a FIFO.
            descriptor = os.open(os.path.join(self._path, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise _missing(path) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InvalidArgumentException(f"The layout's `{path}` is not a file", "the image is damaged: get it again")
        return open(descriptor, "rb")

    def close(self) -> None:
        pass


class _Headers:
    """An archive's file that does not let `tarfile` read a header as long as memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise LimitException("The archive has an extended header that is too long", "it may mean harm; use another image")
        return self._file.read(size)


class _Archive:
    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 -- closed by `close`
        self._members: dict[str, tuple[int, int]] = {}
        try:
            self._look_through(path)
        except BaseException:
            self._file.close()
            raise

    def _look_through(self, path: str) -> None:
        try:
            with tarfile.TarFile(fileobj=_Headers(self._file), mode="r") as opened:  # type: ignore[arg-type]
                archive: Any = opened
                links: dict[str, str] = {}
                while (member := archive.next()) is not None:
                    archive.members.clear()
                    name = os.path.normpath(member.name).lstrip("/")
                    if member.isreg() and member.sparse is None:
                        self._members[name] = member.offset_data, member.size
                    elif member.issym() or member.islnk():
                        # Older versions of `docker save` link layers that images share.
                        base = os.path.dirname(name) if member.issym() else ""
                        links[name] = os.path.normpath(os.path.join(base, member.linkname))
                    if len(self._members) + len(links) > MOST_ARCHIVE_MEMBERS:
                        raise LimitException("The archive has too many members", "is it an image? A root's own files are `--rootfs`")
                self._members |= {name: self._members[target] for name, target in links.items() if target in self._members}
        except (tarfile.TarError, ValueError) as error:
            hint = "give an uncompressed archive of an OCI layout, or of `docker save`"
            raise InvalidArgumentException(f"`{path}` is not a tar archive: {error}", hint) from None

    def open(self, path: str) -> IO[bytes]:
        if path not in self._members:
            raise _missing(path)
        return _Slice(self._file, *self._members[path])  # type: ignore[return-value]

    def close(self) -> None:
        self._file.close()


class _Slice:
    """A member of an archive."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self._left = size

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._offset)
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._offset += len(data)
        self._left -= len(data)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def _missing(path: str) -> NotFoundException:
    return NotFoundException(f"The layout has no `{path}`", "the image is incomplete: get it again")


class Layout:
    """An OCI layout or an archive of `docker save`."""

    def __init__(self, path: str) -> None:
        if os.path.isdir(path):
            self.files: Files = _Directory(path)
        elif os.path.exists(path):
            self.files = _Archive(path)
        else:
            raise NotFoundException(f"There is no `{path}`", "give a directory or an archive with an OCI layout")
        self._path = path

    def close(self) -> None:
        """Lets go of it."""
        self.files.close()

    def find(self, tag: str | None) -> FoundImage:
        """The image of that tag, or the only one."""
        try:
            index = self._document("index.json")
        except NotFoundException:
            try:
                return self._saved(tag)
            except NotFoundException:
                hint = "an OCI layout has an `index.json`; for a root's own files use `pilot image import --rootfs`"
                raise InvalidArgumentException(f"`{self._path}` is not an OCI layout", hint) from None
        descriptor = self._chosen(index, tag)
        return self._manifest(self._resolved(descriptor, 0))

    # OCI.

    def _chosen(self, index: dict[str, Any], tag: str | None) -> dict[str, Any]:
        found = _descriptors(index, "manifests")
        if tag is None:
            real = [each for each in found if _is_image(each)]
            if len({str(each.get("digest")) for each in real}) == 1:
                return real[0]
            # Several without names are one image for several machines.
            if real and not any(_names(each) for each in real):
                return self._for_this_machine(real)
        else:
            for each in found:
                if tag in _names(each):
                    return each
        names = sorted({name for each in found for name in _names(each)})
        known = f"it has {', '.join(f'`{name}`' for name in names[:20])}" if names else "its images have no tags: give none"
        what = "The layout holds no image" if not found else f"The layout has no image `{tag}`" if tag else "The layout has several images"
        raise NotFoundException(what, known)

    def _resolved(self, descriptor: dict[str, Any], depth: int) -> dict[str, Any]:
        if descriptor.get("mediaType") not in _INDEXES:
            return descriptor
        if depth >= DEEPEST_INDEX:
            raise LimitException("The layout's indexes are nested too deeply", "it may mean harm; use another image")
        index = self._document(None, descriptor)
        return self._resolved(self._for_this_machine(_descriptors(index, "manifests")), depth + 1)

    def _for_this_machine(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        fitting = [each for each in found if _is_image(each) and _fits(each.get("platform"))]
        if not fitting:
            machines = sorted({_machine(each.get("platform")) for each in found if _is_image(each)})
            hint = f"it is for {', '.join(machines) or 'none'}; this wall runs linux/{ARCHITECTURE}"
            raise NotFoundException("The image is not for this machine", hint)
        # The plain machine runs on every one; `v2` and later want a newer processor.
        return min(fitting, key=lambda each: (each.get("platform") or {}).get("variant") or "")

    def _manifest(self, descriptor: dict[str, Any]) -> FoundImage:
        manifest = self._document(None, descriptor)
        kind = manifest.get("mediaType") or descriptor.get("mediaType")
        if kind not in (None, *_MANIFESTS) or not isinstance(manifest.get("config"), dict):
            raise InvalidArgumentException(f"The layout has a manifest of the unknown type `{kind}`", "give an OCI or a Docker v2 image")
        config = self._document(None, manifest["config"])
        layers = _descriptors(manifest, "layers")
        diff_ids = _diff_ids(config, len(layers))
        sources = [
            LayerSource(_blob(each.get("digest")), str(each.get("digest")), _size(each), diff_id)
            for each, diff_id in zip(layers, diff_ids, strict=True)
        ]
        return FoundImage(str(descriptor.get("digest")), config, sources)

    # `docker save`.

    def _saved(self, tag: str | None) -> FoundImage:
        entries = self._document("manifest.json", kind=list)
        found = [each for each in entries if isinstance(each, dict) and (tag is None or tag in (each.get("RepoTags") or []))]
        if len(found) != 1:
            names = sorted({name for each in entries for name in each.get("RepoTags") or []})
            raise InvalidArgumentException(f"The archive has {len(found)} images of that name", f"it has {', '.join(names[:20]) or 'none'}")
        path, layers = found[0].get("Config"), found[0].get("Layers")
        if not isinstance(path, str) or not isinstance(layers, list) or not all(isinstance(each, str) for each in layers):
            raise InvalidArgumentException("The archive's `manifest.json` is malformed", "write it again with `docker save`")
        text = self._bytes(path)
        config = _parsed(text, path, dict)
        diff_ids = _diff_ids(config, len(layers))
        # Its layers have no other names than what they unpack to; that is checked.
        sources = [LayerSource(each, diff_id, None, diff_id) for each, diff_id in zip(layers, diff_ids, strict=True)]
        return FoundImage(digests.of(text), config, sources)

    # Documents.

    def _bytes(self, path: str) -> bytes:
        if path.startswith("/") or ".." in path.split("/"):
            raise InvalidArgumentException(f"The layout names the file `{path[:200]}`, which is outside of it", "use another image")
        with self.files.open(path) as file:
            text = file.read(LARGEST_DOCUMENT + 1)
        if len(text) > LARGEST_DOCUMENT:
            raise LimitException(f"The layout's `{path}` is longer than {LARGEST_DOCUMENT >> 20} MiB", "it is not what it claims to be")
        return text

    def _document(self, path: str | None, descriptor: dict[str, Any] | None = None, kind: type = dict) -> Any:
        if path is None:
            assert descriptor is not None
            path = _blob(descriptor.get("digest"))
        text = self._bytes(path)
        if descriptor is not None:
            digests.check(text, descriptor.get("digest"), f"The layout's `{path}`")
            if _size(descriptor) != len(text):
                raise digests.damaged(f"The layout's `{path}`", descriptor.get("digest"))
        return _parsed(text, path, kind)


def _parsed(text: bytes, path: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise InvalidArgumentException(f"The layout's `{path}` is malformed", "the image is damaged: get it again")
    return value


def _blob(digest: Any) -> str:
    return "blobs/{}/{}".format(*digests.parts(digest))


def _size(descriptor: dict[str, Any]) -> int:
    size = descriptor.get("size")
    if not isinstance(size, int) or size < 0:
        raise InvalidArgumentException("The layout has a descriptor without a size", "the image is damaged: get it again")
    return size


def _descriptors(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidArgumentException(f"The layout has a document without `{name}`", "the image is damaged: get it again")
    return found


def _names(descriptor: dict[str, Any]) -> list[str]:
    notes = descriptor.get("annotations")
    found = [notes.get(_REFERENCE), notes.get(_FULL_NAME)] if isinstance(notes, dict) else []
    return [each for each in found if isinstance(each, str)]


def _is_image(descriptor: dict[str, Any]) -> bool:
    """Whether it is one that can run, rather than a note on how one was built."""
    notes = descriptor.get("annotations")
    about = isinstance(notes, dict) and "vnd.docker.reference.type" in notes
    return descriptor.get("mediaType") in (None, *_INDEXES, *_MANIFESTS) and not about


def _machine(platform: Any) -> str:
    return f"{platform.get('os')}/{platform.get('architecture')}" if isinstance(platform, dict) else "a machine that it does not name"


def _fits(platform: Any) -> bool:
    return platform is None or _machine(platform) == f"linux/{ARCHITECTURE}"


def _diff_ids(config: dict[str, Any], layers: int) -> list[str]:
    if not _fits(config if "architecture" in config else None):
        raise NotFoundException("The image is not for this machine", f"it is for {_machine(config)}; this wall runs linux/{ARCHITECTURE}")
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or len(found) != layers:
        raise InvalidArgumentException("The image's configuration and manifest name different layers", "the image is damaged: get it again")
    if layers > MOST_LAYERS:
        raise LimitException(f"The image has more than {MOST_LAYERS} layers", "make one with fewer")
    for each in found:
        digests.parts(each)
    return found
