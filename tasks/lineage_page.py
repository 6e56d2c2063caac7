"""`roberta lineage --html`: a tree of `tasks/lineage.py` as one self-contained page: a drawing, and all facts below it.

The drawing is SVG written by hand: boxes in columns, sources at the left, the model at the right, a curve for each
"was made from". No layout library: a pipeline has some ten stages, and columns by depth show them without crossings
worth speaking of. Files of a folder and code are not drawn, but listed.
"""

import html
from pathlib import Path

from roberta_core.atomic import atomic_file
from tasks.lineage import Node

PAGE = Path("reports") / "lineage.html"
BOX_W, BOX_H, GAP_X, GAP_Y, EDGE = 148, 44, 26, 18, 8
"""Pixels: a box, the space between two, and the drawing's margin."""
DRAWN = ("model", "stage", "source", "file")

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 100rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
details, .leaf { margin-left: 1.1rem; border-left: 2px solid #ddd; padding: .15rem 0 .15rem .8rem; }
summary { cursor: pointer; } code, small { font: 12.5px ui-monospace, monospace; color: #666; overflow-wrap: anywhere; }
.model { border: 0; margin: 0; padding: 0; } .stage > summary { color: #1b5e9c; font-weight: 600; }
.source { border-color: #2e7d32; } .source b { color: #2e7d32; }
figure { margin: 1rem 0; overflow-x: auto; } svg { max-width: 100%; min-width: 72rem; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #222; }
svg .hash { font: 10.5px ui-monospace, monospace; fill: #666; } svg path { fill: none; stroke: #b5bcc4; stroke-width: 1.4; }
svg rect { fill: #eef4fa; stroke: #1b5e9c; } svg .source rect { fill: #eaf5ea; stroke: #2e7d32; }
svg .file rect { fill: #f4f4f4; stroke: #888; } svg .model rect { fill: #fff3dc; stroke: #b26a00; }
@media (prefers-color-scheme: dark) {
  body { background: #16181b; color: #ddd; } .stage > summary { color: #7ab8f0; } svg text { fill: #ddd; }
  svg .hash { fill: #aaa; } svg rect, svg .source rect, svg .file rect, svg .model rect { fill: #22262b; }
}
"""


def draw(tree: Node) -> str:
    """The tree as an SVG element: each stage, source and file once, however often the tree has it."""
    nodes: dict[str, Node] = {}
    for node in tree.walk():
        if node.kind in DRAWN and not node.again:
            nodes.setdefault(node.name, node)
    # the files inside a source's folder are listed, not drawn
    inner = {each.name for node in nodes.values() if node.kind in ("source", "file") for each in node.made_from}
    nodes = {name: node for name, node in nodes.items() if name not in inner}
    needs = {
        name: list(dict.fromkeys(each.name for each in node.made_from if each.name in nodes))
        for name, node in nodes.items()
    }
    column: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in column:
            column[name] = 1 + max((depth(each) for each in needs[name]), default=-1)
        return column[name]

    for name in nodes:
        depth(name)
    # what nothing was made into stands just before what was made of it, and not far away at the left
    for name, node in nodes.items():
        users = [column[user] for user, made in needs.items() if name in made]
        if node.kind in ("source", "file") and users:
            column[name] = min(users) - 1
    rows: dict[int, list[str]] = {}
    for name in nodes:
        rows.setdefault(column[name], []).append(name)
    tallest = max(map(len, rows.values()))
    place = {}
    for number, names in rows.items():
        above = (tallest - len(names)) * (BOX_H + GAP_Y) / 2
        for row, name in enumerate(names):
            place[name] = (EDGE + number * (BOX_W + GAP_X), EDGE + above + row * (BOX_H + GAP_Y))
    width = 2 * EDGE + (max(rows) + 1) * (BOX_W + GAP_X) - GAP_X
    height = 2 * EDGE + tallest * (BOX_H + GAP_Y) - GAP_Y
    curves = [_curve(place[each], place[name]) for name in nodes for each in needs[name]]
    boxes = [_box(nodes[name], *place[name]) for name in nodes]
    label = html.escape(f"What {tree.name} was made from", quote=True)
    return (
        f'<svg role="img" aria-label="{label}" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">{"".join(curves)}{"".join(boxes)}</svg>'
    )


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    x, y, to_x, to_y = start[0] + BOX_W, start[1] + BOX_H / 2, end[0], end[1] + BOX_H / 2
    bend = (to_x - x) / 2
    return f'<path d="M{x:g} {y:g} C{x + bend:g} {y:g} {to_x - bend:g} {to_y:g} {to_x:g} {to_y:g}"/>'


def _box(node: Node, x: float, y: float) -> str:
    wrote = next((md5 for fact, md5 in node.facts.items() if fact.startswith("wrote ")), "")
    hashed = node.facts.get("md5") or wrote or node.facts.get("weights sha256", "")
    name = node.name if len(node.name) <= 21 else f"…{node.name[-20:]}"
    told = html.escape("\n".join([node.name, *(f"{key}: {value}" for key, value in node.facts.items())]))
    return (
        f'<g class="{node.kind}"><title>{told}</title><rect x="{x:g}" y="{y:g}" width="{BOX_W}" height="{BOX_H}" rx="6"/>'
        f'<text x="{x + 9:g}" y="{y + 19:g}">{html.escape(name)}</text>'
        f'<text class="hash" x="{x + 9:g}" y="{y + 35:g}">{html.escape(hashed[:12])}</text></g>'
    )


def _as_html(node: Node) -> str:
    facts = "".join(
        f"<div><small>{html.escape(key)}: {html.escape(str(value))}</small></div>" for key, value in node.facts.items()
    )
    name = f"<b>{html.escape(node.name)}</b>" + (" <small>(see above)</small>" if node.again else "")
    if not node.made_from:
        return f'<div class="leaf {node.kind}">{name}{facts}</div>'
    inner = "".join(map(_as_html, node.made_from))
    opened = " open" if node.kind in ("model", "stage") else ""
    return f'<details class="{node.kind}"{opened}><summary>{name}</summary>{facts}{inner}</details>'


def write_page(root: Path, nodes: list[Node]) -> Path:
    """Writes the trees as one self-contained page, and returns its path."""
    body = "".join(f"<section><figure>{draw(node)}</figure>{_as_html(node)}</section>" for node in nodes)
    with atomic_file(Path(root) / PAGE) as handle:
        handle.write(
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>Lineage</title><style>{STYLE}</style><h1>Where it came from</h1>{body}</html>\n"
        )
    return Path(root) / PAGE
