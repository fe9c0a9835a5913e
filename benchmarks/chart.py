"""A picture of what was measured: bars in an SVG file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

_ROW, _LEFT, _WIDTH = 18, 110, 420


def draw(values: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draw the medians of each measure as bars, each measure to its own scale."""
    parts, y = [], 10
    for measure, queues in values.items():
        y += _ROW
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(measure)}</text>')
        medians = {name: statistics.median(found) for name, found in queues.items()}
        most = max([value for value in medians.values() if not math.isnan(value)] or [1.0]) or 1.0
        for name, value in medians.items():
            y += _ROW
            length = 0 if math.isnan(value) else _WIDTH * value / most
            colour = "#2a7" if name.startswith("aitask") else "#aaa"
            said = "not done" if math.isnan(value) else f"{value:.4g}"
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect x="{_LEFT}" y="{y + 2}" width="{length:.0f}" height="12" fill="{colour}"/>')
            parts.append(f'<text x="{_LEFT + length + 6:.0f}" y="{y + 12}">{said}</text>')
        y += _ROW
    size = f'width="640" height="{y + 10}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n")
