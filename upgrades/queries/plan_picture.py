"""The order of a plan as a picture: a lane per stage, what may run side by side in one row, arrows for what holds what.

Plain numbers, which the template draws. Two are made, one for a wide page and one for a phone, because text in a
scaled picture cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from upgrades.queries.plan import PlanLine, PlanStage

BOX_HEIGHT, BOX_GAP, LANE_GAP, PAD, LINE = 68, 22, 28, 12, 18
TRACK = 12  # between two arrows that run beside the lanes
TONES = {"ready": "act", "running": "act", "blocked": "stop", "done": "go"}


@dataclass(frozen=True, slots=True)
class Form:
    """Where things stand in a picture. With `head_beside` a lane's title stands left of its boxes, else above them."""

    columns: int
    box_width: int
    head_width: int
    letters: int

    @property
    def head_beside(self) -> bool:
        return self.head_width > 0


WIDE = Form(columns=4, box_width=246, head_width=196, letters=29)
NARROW = Form(columns=1, box_width=290, head_width=0, letters=33)


@dataclass(frozen=True, slots=True)
class Box:
    """A run to do. `name` is its title, cut to what fits; `tone` colours it."""

    x: int
    y: int
    name: str
    tone: str
    line: PlanLine


@dataclass(frozen=True, slots=True)
class Lane:
    x: int
    y: int
    width: int
    height: int
    title: str
    after: tuple[tuple[int, str], ...]  # height on the picture, “after …”
    boxes: tuple[Box, ...]
    steps: tuple[Arrow, ...]


@dataclass(frozen=True, slots=True)
class Arrow:
    path: str
    head: str
    text: str


@dataclass(frozen=True, slots=True)
class PlanPicture:
    width: int
    height: int
    box_width: int
    lanes: tuple[Lane, ...]
    arrows: tuple[Arrow, ...]


def pictures(
    stages: Sequence[PlanStage], edges: Sequence[tuple[str, str]]
) -> tuple[PlanPicture, PlanPicture] | None:
    """The picture for a wide page and the one for a phone; None when there is nothing to draw."""
    return (_picture(WIDE, stages, edges), _picture(NARROW, stages, edges)) if stages else None


def _picture(form: Form, stages: Sequence[PlanStage], edges: Sequence[tuple[str, str]]) -> PlanPicture:
    order = {stage.id: place for place, stage in enumerate(stages)}
    far = [(order[one], order[other]) for one, other in edges if order[other] - order[one] > 1]
    tracks = _tracks(far)
    x = 8 + TRACK * (max(tracks.values(), default=-1) + 1) + (6 if far else 0)
    lanes: list[Lane] = []
    y = 1
    for stage in stages:
        lanes.append(_lane(form, stage, x, y))
        y += lanes[-1].height + LANE_GAP
    arrows = [_arrow(lanes, order[one], order[other], tracks) for one, other in edges]
    width = x + lanes[0].width + 1
    return PlanPicture(width, y - LANE_GAP + 1, form.box_width, tuple(lanes), tuple(arrows))


def _lane(form: Form, stage: PlanStage, x: int, y: int) -> Lane:
    head = 30 + LINE * len(stage.after)
    rows = -(-len(stage.lines) // form.columns)
    body = rows * (BOX_HEIGHT + BOX_GAP) - BOX_GAP
    left = x + PAD + form.head_width
    top = y + PAD + (0 if form.head_beside else head)
    boxes = tuple(
        Box(
            x=left + (place % form.columns) * (form.box_width + BOX_GAP),
            y=top + (place // form.columns) * (BOX_HEIGHT + BOX_GAP),
            name=_cut(f"{line.number} · {line.title}", form.letters),
            tone=TONES.get(line.state, ""),
            line=line,
        )
        for place, line in enumerate(stage.lines)
    )
    inner = form.head_width + form.columns * (form.box_width + BOX_GAP) - BOX_GAP
    height = (max(head, body) if form.head_beside else head + body) + 2 * PAD
    after = tuple(
        (y + 50 + LINE * place, f"after {_short(title)} ({sources})")
        for place, (title, sources) in enumerate(stage.after)
    )
    return Lane(x, y, inner + 2 * PAD, height, stage.title, after, boxes, tuple(_steps(form, boxes)))


def _steps(form: Form, boxes: Sequence[Box]) -> Iterator[Arrow]:
    """A short arrow where the next box of a lane waits for the one before it."""
    for one, other in pairwise(boxes):
        if one.line.number not in {wait.number for wait in other.line.waits}:
            continue
        text = f"{one.line.title} before {other.line.title}"
        if one.y == other.y:
            x, y, end = one.x + form.box_width, one.y + BOX_HEIGHT // 2, other.x - 1
            yield Arrow(f"M{x} {y}H{end - 6}", f"M{end - 7} {y - 5}L{end} {y}L{end - 7} {y + 5}Z", text)
        elif form.columns == 1:
            x, y, end = one.x + 28, one.y + BOX_HEIGHT, other.y - 1
            yield Arrow(f"M{x} {y}V{end - 6}", f"M{x - 5} {end - 7}L{x} {end}L{x + 5} {end - 7}Z", text)


# A lane's head is as wide as a box: what holds it is told by the names that everybody uses there.
_SHORT = {
    "Solution Control Server": "SCS",
    "Local Control Agent": "LCA",
    "Configuration Server": "master",
    "License Reporting Manager": "LRM",
    "Configuration Server Proxy": "proxies",
}


def _short(title: str) -> str:
    return _SHORT.get(title, title)


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _tracks(far: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """A track beside the lanes for each arrow that passes a lane; two on one track never meet."""
    ends: list[int] = []
    found: dict[tuple[int, int], int] = {}
    for start, end in sorted(far, key=lambda edge: (edge[1] - edge[0], edge)):
        free = next((place for place, last in enumerate(ends) if last <= start), None)
        if free is None or any(_meet((start, end), other) for other, track in found.items() if track == free):
            free = len(ends)
            ends.append(end)
        ends[free] = end
        found[start, end] = free
    return found


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _arrow(lanes: Sequence[Lane], start: int, end: int, tracks: dict[tuple[int, int], int]) -> Arrow:
    above, below = lanes[start], lanes[end]
    text = f"{above.title} before {below.title}"
    if end - start == 1:
        x, top, bottom = above.x + 28, above.y + above.height, below.y
        return Arrow(
            f"M{x} {top}V{bottom - 7}", f"M{x - 5} {bottom - 8}L{x} {bottom - 1}L{x + 5} {bottom - 8}Z", text
        )
    x = above.x - 8 - TRACK * tracks[start, end]
    # Off the middle, so that what comes in and what goes out of one lane are two lines.
    top, bottom = above.y + above.height - 18, below.y + 18
    return Arrow(
        f"M{above.x} {top}H{x}V{bottom}H{below.x - 7}",
        f"M{below.x - 8} {bottom - 5}L{below.x - 1} {bottom}L{below.x - 8} {bottom + 5}Z",
        text,
    )
