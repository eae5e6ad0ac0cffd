"""Patched system-call sites: calls, signals and threads do as without, and `--no-patch` leaves programs as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Pilot


@pytest.mark.parametrize(("options", "code"), [((), "patched"), (("--no-patch",), "as it was")])
def test_threads_and_signals_at_patched_sites(pilot: Pilot, guests: Path, options: tuple[str, ...], code: str) -> None:
    out = pilot.output(*options, "--volume", f"{guests}:/guests:ro", "--", "/guests/patched", "4000").strip()
    assert out == f"0 wrong, signals seen, {code}"


def test_programs_are_the_same_with_and_without(pilot: Pilot) -> None:
    script = "seq 300 | while read i; do echo $i; done | sort -rn | head -3 | tr '\\n' ' '"
    assert pilot.script(script) == pilot.script(script, "--no-patch")
