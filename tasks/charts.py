"""Charts of the report as inline SVG: line charts, and the funnel of documents.

Written by hand, because a chart library would be the largest dependency of the page and would need scripts. Text in a
scaled SVG shrinks with it, so each chart is drawn twice, wide and narrow, and CSS shows the one that fits. Colours are
classes, so that light, dark and paper are one matter of the style sheet. All text is escaped here.
"""

import json
import math
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDE, NARROW = 760, 360
CHAR_PX = 6.6
"""Mean width of a character at the charts' 12 px: enough to keep labels apart."""


@dataclass(frozen=True)
class Line:
    """One curve: `style` names a CSS class; `dots` marks each point."""

    label: str
    points: list[tuple[float, float]]
    style: str
    dots: bool = False


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that lie in `low` … `high`, about `count` of them."""
    if high <= low:
        return [low]
    power = 10 ** math.floor(math.log10((high - low) / count))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if (high - low) / (power * each) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: list[str], title: str, width: int, height: int, more: str = "") -> Markup:
    style = "narrow" if width < 500 else "wide"
    head = f'<svg class="chart {style}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}"{more}>'
    return Markup(head + "".join(parts) + "</svg>")


def apart(wanted: list[float], gap: float) -> list[float]:
    """Positions near the `wanted` ones, in the same order, no two closer than `gap`."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for _ in range(50):
        moved = False
        for i in range(len(placed) - 1):
            short = gap - (placed[i + 1] - placed[i])
            if short > 1e-6:
                placed[i] -= short / 2
                placed[i + 1] += short / 2
                moved = True
        if not moved:
            break
    result = [0.0] * len(wanted)
    for position, i in zip(placed, order):
        result[i] = position
    return result


def line_chart(
    lines: list[Line],
    *,
    title: str,
    x_name: str,
    shape: str,
    width: int,
    height: int,
    unit: str = "",
    reference: tuple[float, str] | None = None,
    zero: bool = False,
) -> Markup:
    """A line chart, labelled at its lines' ends.

    Args:
        lines: the curves, at least one of them with a point.
        title: what the chart shows, for those who cannot see it.
        x_name: what the horizontal axis counts.
        shape: a format for values, for example `{:.2f}`.
        width, height: px.
        unit: said after the values of the labels.
        reference: a value and its name, drawn as a dashed level.
        zero: let the vertical axis begin at 0.
    """
    lines = [line for line in lines if line.points]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + ([reference[0]] if reference else [])
    low, high = (0.0 if zero else min(ys)), max(ys)
    pad = (high - low or abs(high) or 1.0) * 0.06
    low, high = (0.0 if zero else low - pad), high + pad
    marks = ticks(low, high, max(2, height // 55))
    tick_shape = "{:g}" if all(len(f"{mark:g}") < 7 for mark in marks) else "{:.0e}"
    names = [f"{line.label} {shape.format(line.points[-1][1])}{unit}" for line in lines]
    narrow = width < 500
    left = max(len(tick_shape.format(mark)) for mark in marks) * CHAR_PX + 10
    right = 14 if narrow else max(map(len, names)) * CHAR_PX + 16
    top, bottom = 12, 40
    x0, x1 = min(0.0, *xs), max(xs)

    def px(x: float) -> float:
        return left + (x - x0) / ((x1 - x0) or 1) * (width - left - right)

    def py(y: float) -> float:
        return top + (high - y) / (high - low) * (height - top - bottom)

    out = []
    for mark in marks:
        out.append(f'<path class="grid" d="M{left:.1f} {py(mark):.1f}H{width - right:.1f}"/>')
        out.append(_text(left - 8, py(mark) + 4, tick_shape.format(mark), "tick", "end"))
    x_marks = ticks(x0, x1, 4 if narrow else 8)
    for mark in x_marks:
        out.append(
            _text(px(mark), height - bottom + 18, f"{mark:,g}", "tick", "middle" if px(mark) < width - 14 else "end")
        )
    out.append(_text((left + width - right) / 2, height - 4, x_name, "tick", "middle"))
    if reference:
        y = py(reference[0])
        out.append(f'<path class="reference" d="M{left:.1f} {y:.1f}H{width - right:.1f}"/>')
        out.append(_text(width - right, y - 6, f"{reference[1]} {shape.format(reference[0])}", "note", "end"))
    for line in lines:
        path = "L".join(f"{px(x):.1f} {py(y):.1f}" for x, y in line.points)
        out.append(f'<path class="line {line.style}" d="M{path}"/>')
        for x, y in line.points if line.dots else ():
            said = escape(f"{x_name} {x:,g}: {line.label} {shape.format(y)}{unit}")
            place = f'cx="{px(x):.1f}" cy="{py(y):.1f}" r="3.2"'
            out.append(f'<circle class="dot {line.style}" {place}><title>{said}</title></circle>')
    labelled = [(line, name) for line, name in zip(lines, names) if line.label]
    ends = [py(line.points[-1][1]) for line, _ in labelled]
    for i, ((line, name), y) in enumerate(zip(labelled, apart(ends, 16))):
        if not narrow:
            out.append(_text(width - right + 10, y + 4, name, f"name {line.style}"))
        elif len(labelled) == 1:  # no room beside the line: above its end
            out.append(_text(width - right, y - 12, name, f"name {line.style}", "end"))
        else:
            out.append(_text(width - right, top + 12 + 16 * i, name, f"name {line.style}", "end"))
    hover = {
        "left": left,
        "right": width - right,
        "top": top,
        "bottom": height - bottom,
        "x0": x0,
        "x1": x1,
        "low": low,
        "high": high,
        "x": x_name,
        "lines": [
            {"label": line.label, "points": [[x, y, shape.format(y) + unit] for x, y in line.points]} for line in lines
        ],
    }
    return _svg(out, title, width, height, f' data-hover="{escape(json.dumps(hover, separators=(",", ":")))}"')


@dataclass(frozen=True)
class Step:
    """A column of the funnel: what the documents have been through, and how many of each source are left."""

    label: str
    counts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def funnel_chart(steps: list[Step], *, title: str, width: int, height: int) -> Markup:
    """Documents by source, step after step: bands that narrow where documents are dropped, and the loss in numbers.

    A band's height is its share of the first column; a grey shadow shows what the step before still had.
    """
    narrow = width < 500
    sources = list(steps[0].counts)
    gap = 4 if len(sources) > 1 else 0
    top, bottom, bar = 42, 28, (6 if narrow else 9)
    room = height - top - bottom - gap * (len(sources) - 1)
    scale = room / max(steps[0].total, 1)
    inset = 4 if narrow else 6
    pitch = (width - 2 * inset - bar) / max(len(steps) - 1, 1)

    def bands(step: Step) -> list[tuple[float, float]]:
        """(top, height) of each source in a column, px."""
        y, placed = float(top), []
        for source in sources:
            tall = step.counts[source] * scale
            placed.append((y, tall))
            y += tall + gap
        return placed

    out = []
    for i, step in enumerate(steps):
        x = inset + i * pitch
        here = bands(step)
        foot = here[-1][0] + here[-1][1]
        if i + 1 < len(steps):
            after, lost = steps[i + 1], step.total - steps[i + 1].total
            there = bands(after)
            start, end, middle = x + bar, x + pitch, x + (bar + pitch) / 2
            if lost:
                floor = there[-1][0] + there[-1][1]
                edge = (
                    f"M{start:.1f} {foot:.1f}C{middle:.1f} {foot:.1f} {middle:.1f} {floor:.1f} {end:.1f} {floor:.1f}"
                )
                out.append(f'<path class="lost" d="{edge}V{foot:.1f}Z"/>')
                said = f"−{lost:,}" if narrow else f"−{lost:,} ({lost / max(step.total, 1):.1%})"
                out.append(_text(middle, height - 8, said, "note", "middle"))
            for source, (y, tall), (y2, tall2) in zip(sources, here, there):
                band = (
                    f"M{start:.1f} {y:.1f}C{middle:.1f} {y:.1f} {middle:.1f} {y2:.1f} {end:.1f} {y2:.1f}V{y2 + tall2:.1f}"
                    f"C{middle:.1f} {y2 + tall2:.1f} {middle:.1f} {y + tall:.1f} {start:.1f} {y + tall:.1f}Z"
                )
                said = escape(
                    f"{source}: {step.counts[source]:,} {step.label}, {after.counts[source]:,} {after.label}"
                )
                out.append(f'<path class="band" d="{band}"><title>{said}</title></path>')
                if i == 0 and tall >= 16 and len(source) * CHAR_PX < pitch * (2 if narrow else 1.4):
                    out.append(_text(start + 8, y + min(tall / 2 + 4, 22), source, "name"))
        for source, (y, tall) in zip(sources, here):
            said = escape(f"{source}: {step.counts[source]:,} {step.label}")
            place = f'x="{x:.1f}" y="{y:.1f}" width="{bar}" height="{max(tall, 1):.1f}"'
            out.append(f'<rect class="bar" {place}><title>{said}</title></rect>')
        anchor = "start" if i == 0 else "end" if i == len(steps) - 1 else "middle"
        at = x if i == 0 else x + bar if i == len(steps) - 1 else x + bar / 2
        out += [_text(at, 14, step.label, "tick", anchor), _text(at, 31, f"{step.total:,}", "count", anchor)]
    return _svg(out, title, width, height)


def both(draw, wide_height: int, narrow_height: int) -> Markup:
    """A chart for a desk and one for a phone: `draw(width=…, height=…)` is called for each."""
    return draw(width=WIDE, height=wide_height) + draw(width=NARROW, height=narrow_height)
