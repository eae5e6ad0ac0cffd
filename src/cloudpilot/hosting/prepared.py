"""Sandboxes of templates that ask for it, started in advance.

They end with the service; once handed out they outlive it like all others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from cloudpilot.engine import config
from cloudpilot.engine.detached import DetachedLife
from cloudpilot.engine.pending import follow
from cloudpilot.engine.pool import Pool
from cloudpilot.engine.wall import Life
from cloudpilot.errors import SandboxException
from cloudpilot.hosting.templates import Template

log = logging.getLogger("cloudpilot.sandboxes")


class Prepared:
    """A pool for each template that has one. `settings_of` says how a sandbox of a template is started."""

    def __init__(self, settings_of: Callable[[str, Template], dict[str, Any]]) -> None:
        self._settings_of = settings_of
        self._pools: dict[str, tuple[Template, Pool[None]]] = {}

    def fit(self, templates: list[Template]) -> None:
        """Makes pools for what these templates are now; pools for what they were are closed."""
        wanted = {template.name: template for template in templates if template.prepared}
        for name, (template, pool) in list(self._pools.items()):
            if name not in wanted or _built(wanted[name]) != _built(template):
                del self._pools[name]
                follow(_close(pool))
        for name, template in wanted.items():
            if name not in self._pools:
                self._pools[name] = template, self._make(template)

    def _make(self, template: Template) -> Pool[None]:
        def start() -> Life:
            settings = self._settings_of(config.new_id(), template)
            # Its time begins when it is put to use.
            del settings["timeout_ms"]
            return DetachedLife(settings, waiting=True)

        async def complete(_: Life) -> None:
            pass

        log.info("sandboxes are prepared", extra={"template": template.name, "count": template.prepared})
        return Pool(start, complete, template.prepared)

    @property
    def waiting(self) -> int:
        """How many there are."""
        return sum(pool.waiting for _, pool in self._pools.values())

    def take(self, template: Template) -> DetachedLife | None:
        """One that waits for being a sandbox of this template, if there is one."""
        kept, pool = self._pools.get(template.name, (None, None))
        # Functions have templates of their own, whatever their names.
        if pool is None or kept is None or _built(kept) != _built(template):
            return None
        taken = pool.take()
        return None if taken is None else cast("DetachedLife", taken[0])

    def close(self) -> None:
        """Ends all that wait."""
        for _, pool in self._pools.values():
            follow(_close(pool))
        self._pools.clear()


def _built(template: Template) -> Template:
    """What of a template decides how its sandboxes are built."""
    return replace(template, start_command=None, ready_command=None, ready_timeout=0.0, envs={})


async def _close(pool: Pool[None]) -> None:
    try:
        await pool.close()
    except SandboxException as error:
        log.warning("a prepared sandbox takes long to end", extra={"error": error.message})
