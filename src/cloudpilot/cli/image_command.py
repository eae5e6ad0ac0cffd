"""`pilot image`: images on this host."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cloudpilot.cli import complain, table
from cloudpilot.cli.parser import Parser
from cloudpilot.errors import InvalidArgumentException

if TYPE_CHECKING:
    from cloudpilot.images.image import Image
    from cloudpilot.images.store import Images

_USAGE = """\
import PATH [--tag TAG] [--name NAME]   add an image of an OCI layout, or of an archive by `docker save`
       pilot image import --rootfs PATH --name NAME    add a root directory, or an archive of one
       pilot image build base                          make `base` out of Debian packages
       pilot image list [--json]
       pilot image show NAME
       pilot image remove NAME…"""


def _images(given: Any) -> Images:
    from cloudpilot.images.store import Images

    return Images(given.images)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _parser(verb: str, description: str, usage: str) -> Parser:
    result = Parser(f"image {verb}", description, usage)
    result.add_argument("--images", metavar="DIR", help="directory of images (default: this user's, or CLOUDPILOT_IMAGES)")
    return result


def _shown(image: Image) -> dict[str, Any]:
    value = {"name": image.name, "digest": image.digest, "size": image.size, "created": image.created, "root": image.root}
    return {**value, "config": image.config.shown()}


def _import(arguments: list[str]) -> None:
    parser = _parser("import", "Add an image.", "[OPTIONS] PATH")
    parser.add_argument("--tag", metavar="TAG", help="which image of the layout, where it has several")
    parser.add_argument("--name", metavar="NAME", help="what to call it here")
    parser.add_argument("--rootfs", action="store_true", help="PATH is a root directory or an archive of one, rather than an image")
    parser.add_argument("path", metavar="PATH")
    given = parser.parse_args(arguments)
    if not given.rootfs:
        print(_images(given).import_layout(given.path, given.tag, given.name, _say).name)
        return
    if given.tag or not given.name:
        raise InvalidArgumentException("A root directory has no tag, and no name of its own", "give `--name` without `--tag`")
    print(_images(given).import_root(given.path, given.name, progress=_say).name)


def _build(arguments: list[str]) -> None:
    from cloudpilot.images import debian

    parser = _parser("build", "Make an image out of Debian packages: `base`, with Python and Node.", "[OPTIONS] base")
    parser.add_argument("--mirror", metavar="URL", default=debian.MIRROR, help=f"Debian mirror (default: {debian.MIRROR})")
    parser.add_argument("--package", metavar="NAME", action="append", default=[], help="a package to put in as well")
    parser.add_argument("name", metavar="base", choices=[debian.NAME])
    given = parser.parse_args(arguments)
    print(debian.build(_images(given), mirror=given.mirror, more=given.package, progress=_say).name)


def _list(arguments: list[str]) -> None:
    parser = _parser("list", "List images.", "[--json]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    found = _images(given).all()
    if given.json:
        table.print_json([_shown(image) for image in found])
        return
    rows = [
        (table.shown(image.name, 60), image.digest.partition(":")[2][:12], table.size(image.size), table.age(image.created))
        for image in found
    ]
    table.print_table(("NAME", "DIGEST", "SIZE", "AGE"), rows)


def _show(arguments: list[str]) -> None:
    parser = _parser("show", "Show what an image says about itself, as JSON.", "NAME")
    parser.add_argument("name", metavar="NAME")
    given = parser.parse_args(arguments)
    table.print_json(_shown(_images(given).get(given.name)))


def _remove(arguments: list[str]) -> None:
    parser = _parser("remove", "Remove images. Their files go once no sandbox shows them.", "NAME…")
    parser.add_argument("names", metavar="NAME", nargs="+")
    given = parser.parse_args(arguments)
    for name in given.names:
        _images(given).remove(name)


_VERBS: dict[str, Callable[[list[str]], None]] = {"import": _import, "build": _build, "list": _list, "show": _show, "remove": _remove}


def main(arguments: list[str]) -> int:
    """Runs `pilot image`."""
    verb = arguments[0] if arguments else "--help"
    if verb in _VERBS:
        # Nobody else shall be able to write to what is unpacked.
        os.umask(0o022)
        _VERBS[verb](arguments[1:])
        return 0
    parser = Parser("image", "Images on this host.", _USAGE)
    if verb in ("--help", "-h"):
        parser.print_help()
        return 0
    return complain(f"There is no `pilot image {verb}`", "`pilot image --help` lists what there is")
