"""What a sandbox is told so that it starts as its image wants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloudpilot.engine import config
from cloudpilot.images.image import Image
from cloudpilot.images.owners import root_setting


@dataclass(frozen=True, slots=True)
class Start:
    """A program in an image.

    Attributes:
        args: Program and arguments; empty where none was asked for.
        environment: Its environment.
        workdir: Where it begins.
        user: Numbers of whom it runs as.
        root: The root, as the engine is told it.
    """

    args: list[str]
    environment: dict[str, str]
    workdir: str
    user: dict[str, int]
    root: dict[str, Any]


def of_image(
    image: Image,
    arguments: list[str] | None,
    *,
    entrypoint: list[str] | None = None,
    user: str | None = None,
    workdir: str | None = None,
) -> Start:
    """A program in an image, by the rules of other container engines: what is given comes before what the image says."""
    who = image.user(user)
    environment = {**config.default_env(who.uid), "HOME": who.home, **image.config.environment}
    args = [] if arguments is None else image.config.program(arguments, entrypoint)
    return Start(args, environment, workdir or image.config.workdir, {"uid": who.uid, "gid": who.gid}, root_setting(image.root))
