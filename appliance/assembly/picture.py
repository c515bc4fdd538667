"""The picture of an assembly: a self-contained SVG, laid out by what the box is.

The path of the traffic runs from left to right, from the domain that holds the plaintext interface to the one that
holds the socket; what serves it stands below, callers above those they call; a domain that only receives public records
is a bar at the foot, and a dot in the corner of a box is its channel to there. Lines are drawn first, so that a box
hides what passes behind it. All lengths are in pixels.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from appliance.assembly import schemas
from appliance.assembly.model import DEVICES, LABELS, Channel, Domain, ValidatedAssembly
from appliance.guest.outside import OPERATOR
from appliance.vchan.schema import Kind

COLOURS: Final = {"PUBLIC": "#7d8590", "CONTROL": "#1f6fb2", "BLACK": "#1b1f24", "RED": "#c62b22", "KEY": "#c07f00"}
"""Of each label, in every drawing."""

BOX: Final = 134
"""Width of a box, and of a column that holds one domain."""
LANE: Final = 52
"""Room to the left of a box, for the lines that come down from the box above it in the same column."""
GAP: Final = 92
ROW: Final = 78
ROW_GAP: Final = 22
BELOW: Final = 92
SERVICE: Final = 70
SERVICE_GAP: Final = 74
FACE: Final = 54
MARGIN: Final = 28
TOP: Final = 74
THICK: Final = 18
"""log2 of a ring's bytes, above which a channel is one of the data path and drawn as such."""


@dataclass(frozen=True)
class Box:
    """Where a domain is drawn."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def centre(self) -> float:
        return self.x + self.width / 2


Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A channel as drawn: its corners from client to server, and where its name stands (``upright``: on its side)."""

    channel: Channel
    points: tuple[Point, ...]
    label: Point
    upright: bool


def _spread(low: float, high: float, count: int, best: Iterable[float] = ()) -> list[float]:
    """``count`` places in low..high: the ``best`` ones if there are as many, else evenly, none at the edge."""
    fit = [place for place in best if low < place < high]
    return fit if len(fit) == count else [low + (high - low) * (i + 0.5) / count for i in range(count)]


def _labels(channel: Channel) -> frozenset[str]:
    return schemas.forward(channel.schema) | schemas.backward(channel.schema)


def _colour(channel: Channel) -> str:
    """Of the most secret label that the channel carries."""
    return COLOURS[max(_labels(channel), key=LABELS.index)]


# Who stands where


def _faces(assembly: ValidatedAssembly, label: str) -> list[str]:
    """The domains that hold a network device of that label, the chief one first."""
    return [
        domain.name
        for domain in assembly.domains
        if any(DEVICES[device].network and DEVICES[device].label == label for device in domain.role.devices)
    ]


def _distances(start: str, neighbours: dict[str, set[str]]) -> dict[str, int]:
    found = {start: 0}
    queue = deque([start])
    while queue:
        at = queue.popleft()
        for to in sorted(neighbours.get(at, ())):
            if to not in found:
                found[to] = found[at] + 1
                queue.append(to)
    return found


def _bus(assembly: ValidatedAssembly) -> Domain | None:
    """The domain that every other one sends to and that sends nothing: it would be a star of lines, so it is a bar."""
    for domain in assembly.domains:
        ends = assembly.channels_of(domain.name)
        senders = {channel.client.domain for channel in ends}
        if domain.name not in senders and len(senders) == len(ends) == len(assembly.domains) - 1 > 2:
            return domain
    return None


def _path(assembly: ValidatedAssembly, face: str | None = None) -> dict[str, int]:
    """The domains that traffic passes between the two faces of the box, each with its column: the black one is
    ``face``, or the chief one. Empty if it has not two faces.
    """
    red = next(iter(_faces(assembly, "RED")), None)
    black = face or next(iter(_faces(assembly, "BLACK")), None)
    neighbours: dict[str, set[str]] = {}
    for channel in assembly.channels:
        if _labels(channel) & {"RED", "BLACK"}:
            neighbours.setdefault(channel.client.domain, set()).add(channel.server.domain)
            neighbours.setdefault(channel.server.domain, set()).add(channel.client.domain)
    if red is None or black is None:
        return {}
    left, right = _distances(red, neighbours), _distances(black, neighbours)
    return {
        domain.name: left[domain.name]
        for domain in assembly.domains
        if domain.name in left and left[domain.name] + right.get(domain.name, 1 << 16) == left.get(black)
    }


def _ranks(assembly: ValidatedAssembly, services: list[str]) -> dict[str, int]:
    """The row of each service: below everybody who calls it. (A validated call graph has no cycle.)"""
    calls = [
        (channel.client.domain, channel.server.domain)
        for channel in assembly.channels
        if (found := schemas.find(channel.schema)) and found.kind is Kind.CALL
    ]
    ranks = dict.fromkeys(services, 0)
    for _ in services:
        for caller, callee in calls:
            if caller in ranks and callee in ranks:
                ranks[callee] = max(ranks[callee], ranks[caller] + 1)
    return ranks


def _columns(assembly: ValidatedAssembly, path: dict[str, int], ranks: dict[str, int]) -> dict[str, int]:
    """The column of every domain: services as near as can be to those they are joined to."""
    columns = dict(path)
    for name in sorted(ranks, key=ranks.__getitem__):
        near = [
            columns[other]
            for channel in assembly.channels_of(name)
            for other in (channel.client.domain, channel.server.domain)
            if other != name and other in columns
        ]
        wanted = int(sum(near) / len(near) + 0.5) if near else 0
        taken = {columns[other] for other in columns if ranks.get(other) == ranks[name]}
        columns[name] = min((c for c in range(64) if c not in taken), key=lambda c: (abs(c - wanted), -c))
    return columns


@dataclass(frozen=True)
class Layout:
    """Where everything stands."""

    boxes: dict[str, Box]
    path: dict[str, int]
    columns: dict[str, int]
    starts: list[float]
    """The left edge of each column."""
    width: float
    foot: float
    """Where the lowest box ends."""
    rows: tuple[float, ...]
    """The middle of each row of the path."""
    bus: Domain | None


def _layout(assembly: ValidatedAssembly) -> Layout:
    bus = _bus(assembly)
    path = _path(assembly)
    # Further faces stand in the last column, below all that is on the way to the chief one
    further = _faces(assembly, "BLACK")[1:] if path else []
    shared = {name for face in further for name in _path(assembly, face)} & set(path)
    last = max(path.values(), default=0)
    stacks: dict[int, list[str]] = {}
    for name, column in path.items():
        stacks.setdefault(column, []).append(name)
    path.update(dict.fromkeys(further, last))
    chief = max(map(len, stacks.values()), default=0)
    rows = chief + len(further)
    height, chief_height = (count * ROW + max(count - 1, 0) * ROW_GAP for count in (rows, chief))
    services = [party.name for party in assembly.parties if party.name not in path and party is not bus]
    ranks = _ranks(assembly, services)
    columns = _columns(assembly, path, ranks)
    x: float = MARGIN + (FACE + GAP * 0.75 if path else 0)
    starts, widths = [], []
    for column in range(max(columns.values(), default=0) + 1):
        starts.append(x)
        widths.append(BOX + LANE * max(len(stacks.get(column, ())) - 1, 0))
        x += widths[-1] + GAP
    boxes = {}
    for column, names in stacks.items():
        room = height if set(names) <= shared else chief_height
        each = (room - (len(names) - 1) * ROW_GAP) / len(names)
        for i, name in enumerate(names):
            boxes[name] = Box(starts[column] + i * LANE, TOP + i * (each + ROW_GAP), widths[column] - i * LANE, each)
    for i, name in enumerate(further, chief):
        boxes[name] = Box(starts[last], TOP + i * (ROW + ROW_GAP), BOX, ROW)
    top = TOP + (height + BELOW if path else 0)
    for name, rank in ranks.items():
        column = columns[name]
        boxes[name] = Box(starts[column], top + rank * (SERVICE + SERVICE_GAP), widths[column], SERVICE)
    foot = max((box.bottom for box in boxes.values()), default=TOP)
    width = x - GAP + MARGIN + (FACE + GAP * 0.75 if path else 0)
    middles = tuple(TOP + i * (ROW + ROW_GAP) + ROW / 2 for i in range(rows))
    return Layout(boxes, path, columns, starts, width, foot, middles, bus)


# Which way the lines go


def _free(upper: Box, lower: Box, boxes: Iterable[Box]) -> tuple[float, float] | None:
    """The widest range of x on which a vertical from ``upper`` reaches ``lower`` with no box in between."""
    low, high = max(upper.x, lower.x), min(upper.right, lower.right)
    if low >= high:
        return None
    blocks = [box for box in boxes if upper.bottom <= box.y and box.bottom <= lower.y]
    edges = sorted({low, high, *(edge for box in blocks for edge in (box.x, box.right) if low < edge < high)})
    ranges = [
        (a, b)
        for a, b in itertools.pairwise(edges)
        if b - a >= 20 and not any(box.x < b and a < box.right for box in blocks)
    ]
    return max(ranges, key=lambda pair: pair[1] - pair[0], default=None)


@dataclass
class _Fall:
    """Channels that leave the foot of one box, within the same range of x: to whom, and whether straight."""

    low: float
    high: float
    channels: list[tuple[Channel, str, bool]]


@dataclass(frozen=True)
class _Bend:
    """A channel that comes to the side of a box from the foot of one above, or the head of one below, at ``x``."""

    x: float
    other: str
    above: bool
    channel: Channel


def _hits(upper: Box, lower: Box, boxes: Iterable[Box]) -> bool:
    """Somebody stands where a line would come down from ``upper`` to the height of ``lower``."""
    end = lower.y + lower.height / 2
    others = (box for box in boxes if box not in (upper, lower))
    return any(b.x < upper.right and upper.x < b.right and b.y < end and upper.bottom < b.bottom for b in others)


def _routes(assembly: ValidatedAssembly, layout: Layout) -> Iterator[Line]:
    """Across between neighbours; else straight down; else down and into a side; else out of a side and down."""
    boxes = layout.boxes
    level: dict[tuple[str, str], list[Channel]] = {}
    falls: dict[tuple[str, float], _Fall] = {}
    bends: dict[tuple[str, bool], list[_Bend]] = {}
    for channel in assembly.channels:
        ends = channel.client.domain, channel.server.domain
        if any(end not in boxes for end in ends):
            continue  # to the bar
        left, right = sorted(ends, key=lambda end: boxes[end].x)
        if boxes[left].y < boxes[right].bottom and boxes[right].y < boxes[left].bottom:
            level.setdefault((left, right), []).append(channel)
            continue
        upper, lower = sorted(ends, key=lambda end: boxes[end].y)
        a, b = boxes[upper], boxes[lower]
        free = _free(a, b, boxes.values())
        if free is None and _hits(a, b, boxes.values()):
            to_right = b.centre > a.centre
            x = b.x + b.width / 4 if to_right else b.right - b.width / 4
            bends.setdefault((upper, to_right), []).append(_Bend(x, lower, False, channel))
            continue
        low, high = free or (a.x, a.right)
        falls.setdefault((upper, low), _Fall(low, high, [])).channels.append((channel, lower, free is not None))
    for (left, right), channels in level.items():
        yield from _level(layout, left, right, channels)
    for (upper, _), fall in falls.items():
        yield from _straight(layout, upper, fall, bends)
    for (name, at_right), side in bends.items():
        yield from _bent(layout, name, at_right, side)


def _level(layout: Layout, left: str, right: str, channels: list[Channel]) -> Iterator[Line]:
    """Straight across; those that lead to the right above those that lead back."""
    a, b = layout.boxes[left], layout.boxes[right]
    channels.sort(key=lambda channel: channel.client.domain != left)
    low, high = max(a.y, b.y), min(a.bottom, b.bottom)
    # In the gap between the columns, where nothing comes down
    middle = (a.right + layout.starts[layout.columns[right]]) / 2
    for channel, y in zip(channels, _spread(low, high, len(channels), layout.rows), strict=True):
        points = ((a.right, y), (b.x, y))
        yield Line(channel, points if channel.client.domain == left else points[::-1], (middle, y - 6), False)


def _straight(layout: Layout, upper: str, fall: _Fall, bends: dict[tuple[str, bool], list[_Bend]]) -> Iterator[Line]:
    """Down from the foot of ``upper``, in the order of those below; what must bend on its way goes to ``bends``."""
    box = layout.boxes[upper]
    fall.channels.sort(key=lambda one: (layout.boxes[one[1]].centre, one[0].client.domain != upper))
    places = _spread(fall.low, fall.high, len(fall.channels))
    for (channel, lower, straight), x in zip(fall.channels, places, strict=True):
        below = layout.boxes[lower]
        if straight or below.x < x < below.right:
            points = ((x, box.bottom), (x, below.y))
            # Near the box below, where the lines of other rows do not cross it
            label = (x - 5, max(below.y - BELOW, box.bottom) / 2 + below.y / 2)
            yield Line(channel, points if channel.client.domain == upper else points[::-1], label, True)
        else:
            bends.setdefault((lower, x > below.centre), []).append(_Bend(x, upper, True, channel))


def _bent(layout: Layout, name: str, at_right: bool, side: list[_Bend]) -> Iterator[Line]:
    """Into one side of a box. From above, the farther away the lower; to below, the farther the higher: so none crosses
    another.
    """
    box = layout.boxes[name]
    side.sort(key=lambda bend: (not bend.above, bend.x if bend.above == at_right else -bend.x))
    edge = box.right if at_right else box.x
    middle = edge + GAP / 2 if at_right else edge - GAP / 2
    for bend, y in zip(side, _spread(box.y, box.bottom, len(side)), strict=True):
        other = layout.boxes[bend.other]
        points = ((bend.x, other.bottom if bend.above else other.y), (bend.x, y), (edge, y))
        forward = bend.channel.client.domain == bend.other
        yield Line(bend.channel, points if forward else points[::-1], (middle, y - 5), False)


# Ink

_DASHED: Final = ' stroke-dasharray="5 4"'


def _arrow(tip: Point, before: Point, colour: str, size: float) -> str:
    dx, dy = tip[0] - before[0], tip[1] - before[1]
    length = (dx * dx + dy * dy) ** 0.5 or 1
    ux, uy = dx / length, dy / length
    base = tip[0] - ux * size, tip[1] - uy * size
    half = size * 0.42
    corners = [tip, (base[0] - uy * half, base[1] + ux * half), (base[0] + uy * half, base[1] - ux * half)]
    return f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}" fill="{colour}"/>'


def _text(at: Point, said: str, size: float = 11, more: str = "") -> str:
    return f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" font-size="{size:g}" {more}>{escape(said)}</text>'


def _line(line: Line, bypass: str | None) -> Iterator[str]:
    """``bypass`` is the reason why plaintext leaves by this channel, if it does."""
    colour = _colour(line.channel)
    found = schemas.find(line.channel.schema)
    call = found is not None and found.kind is Kind.CALL
    width = 3.2 if found and found.ring_order > THICK else 1.7
    points = list(line.points)
    tip, before = points[-1], points[-2]
    size = 9 + width
    # The line ends inside its arrow head
    back = [
        before[i] + (tip[i] - before[i]) * (1 - (size - 2) / max(abs(tip[0] - before[0]) + abs(tip[1] - before[1]), 1))
        for i in (0, 1)
    ]
    points[-1] = back[0], back[1]
    ends = f"{line.channel.client} to {line.channel.server}"
    labels = " ".join(label for label in LABELS if label in _labels(line.channel))
    declared = f": a declared bypass, {bypass}" if bypass else ""
    yield f"<g><title>{escape(f'{ends}: {line.channel.schema} ({labels}){declared}')}</title>"
    yield (
        f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none" stroke="{colour}" '
        f'stroke-width="{width}"{_DASHED if call else ""}/>'
    )
    yield _arrow(tip, before, colour, size)
    if call:
        # Just outside of the caller's box
        (x, y), (x2, y2) = line.points[0], line.points[1]
        x, y = x + 5 * ((x2 > x) - (x2 < x)), y + 5 * ((y2 > y) - (y2 < y))
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="#fff" stroke="{colour}" stroke-width="1.7"/>'
    turn = f' transform="rotate(-90 {line.label[0]:.1f} {line.label[1]:.1f})"' if line.upright else ""
    if bypass:
        yield _text(
            (line.label[0], line.label[1] + 20), "bypass", 11, f'class="name" style="fill:{COLOURS["RED"]}"{turn}'
        )
    yield _text(line.label, line.channel.schema, 11, f'class="name" style="fill:{colour}"{turn}')
    yield "</g>"


def _box(domain: Domain, box: Box, bus: Domain | None) -> Iterator[str]:
    role = domain.role
    outside = domain.name == OPERATOR
    yield f"<g><title>{escape(f'{domain.name}: {role.summary}')}</title>"
    yield (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="7" '
        'stroke-width="1.3" '
        + ('fill="#fff" stroke="#59636e" stroke-dasharray="2 3"/>' if outside else 'fill="#f6f8fa" stroke="#59636e"/>')
    )
    said = [] if role.component == domain.name else ["outside of the box" if outside else role.component]
    said += [transform.replace("->", " → ") for transform in sorted(role.transforms)]
    said += [device + " device" for device in role.devices if not DEVICES[device].network]
    middle = box.y + box.height / 2 - (0 if said else 6)
    yield _text((box.centre, middle - (6 if said else -4)), domain.name, 15, 'class="domain"')
    if said:
        yield _text((box.centre, middle + 10), " · ".join(said), 10.5, 'class="small"')
    seen = [label for label in ("RED", "BLACK", "KEY") if label in role.clearance]
    for label, x in zip(seen, _spread(box.centre - 8 * len(seen), box.centre + 8 * len(seen), len(seen)), strict=True):
        yield f'<circle cx="{x:.1f}" cy="{middle + 23:.1f}" r="4.5" fill="{COLOURS[label]}"/>'
    if bus and not outside:
        yield f'<circle cx="{box.right - 10:.1f}" cy="{box.y + 10:.1f}" r="3.5" fill="{COLOURS["PUBLIC"]}"/>'
    yield "</g>"


def _face_of(layout: Layout, assembly: ValidatedAssembly, holder: str, label: str, name: str) -> Iterator[str]:
    """LAN or WAN, outside the box, with a line for each network device of that label."""
    if holder not in layout.path:
        return
    box = layout.boxes[holder]
    left = label == "RED"
    x = MARGIN if left else layout.width - MARGIN - FACE
    yield (
        f'<rect x="{x:.1f}" y="{box.y:.1f}" width="{FACE}" height="{box.height:.1f}" rx="7" fill="none" '
        f'stroke="{COLOURS[label]}" stroke-width="1.5" stroke-dasharray="2 3"/>'
    )
    yield _text((x + FACE / 2, box.y + box.height / 2 + 5), name, 15, f'class="domain" style="fill:{COLOURS[label]}"')
    devices = [device for device in assembly.domain(holder).role.devices if DEVICES[device].network]
    a, b = (x + FACE, box.x) if left else (box.right, x)
    for device, y in zip(devices, _spread(box.y, box.bottom, len(devices), layout.rows), strict=True):
        yield f'<line x1="{a + 8}" y1="{y}" x2="{b - 8}" y2="{y}" stroke="{COLOURS[label]}" stroke-width="3.2"/>'
        yield _arrow((a, y), (b, y), COLOURS[label], 12)
        yield _arrow((b, y), (a, y), COLOURS[label], 12)
        yield _text(((a + b) / 2, y - 7), device, 11, f'class="name" style="fill:{COLOURS[label]}"')


def _bar(layout: Layout, bus: Domain, y: float) -> Iterator[str]:
    low = min(box.x for box in layout.boxes.values())
    high = max(box.right for box in layout.boxes.values())
    yield f"<g><title>{escape(f'{bus.name}: {bus.role.summary}')}</title>"
    yield (
        f'<rect x="{low:.1f}" y="{y:.1f}" width="{high - low:.1f}" height="38" rx="7" fill="#f6f8fa" '
        f'stroke="{COLOURS["PUBLIC"]}" stroke-width="1.3"/>'
    )
    held = "".join(f" · {device} device" for device in bus.role.devices)
    yield _text((low + 46, y + 24), bus.name, 15, 'class="domain"')
    yield f'<circle cx="{low + 92:.1f}" cy="{y + 19.5:.1f}" r="3.5" fill="{COLOURS["PUBLIC"]}"/>'
    said = f"records of every domain, one channel each{held}"
    yield _text((low + 104, y + 23), said, 11, 'class="small" style="text-anchor:start"')
    yield "</g>"


def _legend(y: float) -> Iterator[str]:
    x: float = MARGIN
    says = {"RED": "plaintext", "BLACK": "ciphertext", "KEY": "keys", "CONTROL": "steering", "PUBLIC": "may be shown"}
    for label, said in says.items():
        yield f'<line x1="{x}" y1="{y}" x2="{x + 22}" y2="{y}" stroke="{COLOURS[label]}" stroke-width="3.2"/>'
        yield f'<circle cx="{x + 11}" cy="{y}" r="4.5" fill="{COLOURS[label]}"/>'
        words = f"{label} {said}"
        yield _text((x + 28, y + 4), words, 11, 'class="small" style="text-anchor:start"')
        x += 28 + 6.6 * len(words) + 20
    for call, said in ((False, "stream"), (True, "call and reply")):
        grey = "#59636e"
        yield (
            f'<line x1="{x}" y1="{y}" x2="{x + 24}" y2="{y}" stroke="{grey}" stroke-width="1.7"'
            f"{_DASHED if call else ''}/>"
        )
        yield _arrow((x + 32, y), (x, y), grey, 10)
        if call:
            yield f'<circle cx="{x}" cy="{y}" r="4.5" fill="#fff" stroke="{grey}" stroke-width="1.7"/>'
        yield _text((x + 38, y + 4), said, 11, 'class="small" style="text-anchor:start"')
        x += 38 + 6.6 * len(said) + 24


_STYLE: Final = (
    "text{font-family:system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif;text-anchor:middle;fill:#1b1f24}"
    ".domain{font-weight:600}.small{fill:#59636e}"
    ".name{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}"
)


def svg(assembly: ValidatedAssembly) -> str:
    """The picture of ``assembly``; an SVG file that needs nothing else."""
    layout = _layout(assembly)
    parts: list[str] = []
    for line in _routes(assembly, layout):
        parts += _line(line, assembly.bypass(line.channel.client))
    for label, name in (("RED", "LAN"), ("BLACK", "WAN")):
        for holder in _faces(assembly, label):
            parts += _face_of(layout, assembly, holder, label, name)
    for party in assembly.parties:
        if party.name in layout.boxes:
            parts += _box(party, layout.boxes[party.name], layout.bus)
    foot = layout.foot
    if layout.bus:
        parts += _bar(layout, layout.bus, foot + 26)
        foot += 26 + 38
    parts += _legend(foot + 34)
    width, height = max(layout.width, 990), foot + 34 + MARGIN
    said = f'style="text-anchor:start;fill:{COLOURS["RED"]}"'
    title = f"{assembly.name}: {assembly.summary}" if assembly.summary else assembly.name
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-labelledby="title">',
        f'<title id="title">{escape(title)}</title>',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="10" fill="#fff"/>',
        *(
            _text((MARGIN, 58 + 15 * i), f"declared bypass by {one.port}: {one.reason}", 11.5, said)
            for i, one in enumerate(assembly.bypasses)
        ),
        _text((MARGIN, 38), assembly.summary or assembly.name, 17, 'class="domain" style="text-anchor:start"'),
    ]
    return "\n".join([*head, *parts, "</svg>", ""])
