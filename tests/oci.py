"""OCI layouts as tests want them, honest ones and others."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

Entry = tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], bytes]


def file(name: str, data: bytes = b"", **more: Any) -> Entry:
    return name, more, data


def directory(name: str, **more: Any) -> Entry:
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755, **more}


def symlink(name: str, target: str, **more: Any) -> Entry:
    return name, {"type": tarfile.SYMTYPE, "linkname": target, **more}


def hard_link(name: str, target: str) -> Entry:
    return name, {"type": tarfile.LNKTYPE, "linkname": target}


def tar(entries: Iterable[Entry]) -> bytes:
    """An archive of these entries, just as they are given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, more, *data in entries:
            member = tarfile.TarInfo(name)
            for key, value in more.items():
                setattr(member, key, value)
            if data:
                member.size = len(data[0])  # type: ignore[arg-type]
            archive.addfile(member, io.BytesIO(*data) if data else None)  # type: ignore[arg-type]
    return buffer.getvalue()


class Builder:
    """Writes an OCI layout into a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digits = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digits).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digits}", "size": len(data), **more}

    def document(self, value: Any, media_type: str, **more: Any) -> dict[str, Any]:
        return self.blob(json.dumps(value).encode(), media_type, **more)

    def manifest(
        self,
        layers: Iterable[bytes],
        config: dict[str, Any] | None = None,
        compress: Callable[[bytes], bytes] = gzip.compress,
        architecture: str = "amd64",
    ) -> dict[str, Any]:
        """A manifest, not yet listed."""
        layers = list(layers)
        ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        described = self.document(
            {"architecture": architecture, "os": "linux", "config": config or {}, "rootfs": {"type": "layers", "diff_ids": ids}}, CONFIG
        )
        blobs = [self.blob(compress(layer), LAYER) for layer in layers]
        value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": blobs}
        return self.document(value, MANIFEST)

    def image(self, *layers: bytes, tag: str | None = "latest", **more: Any) -> dict[str, Any]:
        """An image, listed under a tag."""
        found = self.manifest(layers, **more)
        if tag is not None:
            found["annotations"] = {"org.opencontainers.image.ref.name": tag}
        self.manifests.append(found)
        self.finish()
        return found

    def finish(self) -> None:
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))


def simple(path: Path, *entries: Entry, **more: Any) -> Path:
    """A layout with one image of one layer."""
    Builder(path).image(tar(entries), **more)
    return path
