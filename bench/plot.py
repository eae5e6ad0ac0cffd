"""Plots as SVG: one small panel a kind, both axes logarithmic, one colour an operation, ours drawn through and native dashed."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from bench.report import NATIVE, OURS

if TYPE_CHECKING:
    from bench.curves import Points

COLUMNS = 2
WIDTH, HEIGHT = 480, 250
"""Of a panel, with its margins."""
LEFT, RIGHT, TOP, BOTTOM = 72, 128, 34, 36
COLOURS = ("#1f6fb2", "#c1452b", "#2f8f4e", "#8a5aa8")


def small_multiples(points: Points, titles: dict[str, str]) -> str:
    """All panels on one sheet."""
    kinds = list(dict.fromkeys(kind for kind, _ in points))
    rows = math.ceil(len(kinds) / COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="12" y="17" fill="#333">nanoseconds an operation, by how many there are; drawn through: cloudpilot, dashed: native</text>',
    ]
    for index, kind in enumerate(kinds):
        operations = {operation: costs for (of, operation), costs in points.items() if of == kind}
        x, y = index % COLUMNS * WIDTH, index // COLUMNS * HEIGHT + 24
        parts.append(f'<g transform="translate({x},{y})">{_panel(titles[kind], operations)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, operations: dict[str, dict[int, dict[str, float]]]) -> str:
    sizes = [size for costs in operations.values() for size in costs]
    costs = [cost for of_size in operations.values() for both in of_size.values() for cost in both.values()]
    left, right = math.log10(min(sizes)), math.log10(max(sizes))
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(size: float) -> float:
        return LEFT + (math.log10(size) - left) / (right - left) * inner_width

    def up(cost: float) -> float:
        return TOP + (high - math.log10(cost)) / (high - low) * inner_height

    parts = [f'<text x="{LEFT}" y="{TOP - 10}" font-weight="bold" fill="#222">{escape(title)}</text>']
    for power in range(low, high + 1):
        y = up(10**power)
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + inner_width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{10**power:,}</text>')
    for size in sorted(set(sizes)):
        label = f'<text x="{across(size):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle" fill="#666">{size:,}</text>'
        parts.append(label)
    for index, (operation, of_size) in enumerate(operations.items()):
        colour = COLOURS[index % len(COLOURS)]
        for name, dashes in ((NATIVE, ' stroke-dasharray="4 3" opacity="0.7"'), (OURS, "")):
            line = " ".join(f"{across(size):.1f},{up(both[name]):.1f}" for size, both in sorted(of_size.items()) if name in both)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>')
        y = TOP + 10 + index * 17
        parts.append(f'<rect x="{WIDTH - RIGHT + 10}" y="{y - 8}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 25}" y="{y + 1}" fill="#333">{escape(operation)}</text>')
    return "".join(parts)
