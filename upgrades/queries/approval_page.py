"""A request for a signature with all that is needed to decide it, on one page that fits a phone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from upgrades.domain.gates import applies, is_ahead
from upgrades.domain.procedure import ApprovalGate, Step, WayBackGate
from upgrades.models import Run
from upgrades.queries.run_page import overview
from upgrades.queries.run_page.gate_rows import gate_row
from upgrades.queries.run_page.shapes import (
    Approval,
    DeviationRow,
    File,
    GateRow,
    Sentence,
    Shown,
    Tile,
    WayBackRow,
)
from upgrades.queries.run_page.sight import Sight, spoken


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalPage:
    """What, on which servers, with which exposures, which way back and which evidence; and who decides."""

    run: int
    title: str
    environment: str
    rehearsal: bool
    change: str
    starter: str
    started_at: datetime
    status: str
    hold_reason: str
    step: str
    visit: int
    step_number: str
    step_title: str
    destroys: bool
    expected: str
    do: tuple[Sentence, ...]
    gate: GateRow
    servers: tuple[Shown, ...]
    opens: tuple[Shown, ...]
    tiles: tuple[Tile, ...]
    way_back: tuple[WayBackRow, ...]
    needs: tuple[GateRow, ...]
    files: tuple[File, ...]
    deviations: tuple[DeviationRow, ...]

    @property
    def approval(self) -> Approval:
        assert self.gate.approval is not None
        return self.gate.approval


def approval_page(run: Run, sight: Sight, step_id: str, gate_id: str) -> ApprovalPage | None:
    """The page of an approval that can be decided now, or was; None where there is no such approval."""
    step = sight.procedure.step(step_id) if sight.procedure.has_step(step_id) else None
    gate = step.gate(gate_id) if step is not None else None
    if step is None or not isinstance(gate, ApprovalGate):
        return None
    state = sight.state
    if step.id not in state.steps and not is_ahead(state, step):
        return None
    others = [other for other in step.needs if other is not gate and applies(other, state)]
    return ApprovalPage(
        run=run.pk,
        title=state.started.title,
        environment=state.started.environment_name,
        rehearsal=state.started.rehearsal,
        change=state.started.change,
        starter=state.starter.name,
        started_at=state.started_at,
        status=str(state.status),
        hold_reason=state.hold_reason,
        step=step.id,
        visit=state.visit(step.id),
        step_number=sight.numbers.get(step.id, "–"),
        step_title=sight.title(step.id),
        destroys=step.destroys,
        expected=spoken(step.expected) if step.expected else "",
        do=tuple(sight.sentence(line) for line in step.do),
        gate=gate_row(sight, step, gate),
        servers=_servers(sight),
        opens=_opens(sight, step),
        tiles=overview.tiles(sight),
        way_back=_way_back(sight, step),
        needs=tuple(gate_row(sight, step, other) for other in others if not isinstance(other, WayBackGate)),
        files=overview.files(sight),
        deviations=overview.deviations(sight),
    )


def _servers(sight: Sight) -> tuple[Shown, ...]:
    """The servers by the part that they play; the many that only a group brought in are left to the list of facts."""
    titles = {role.name: role.title for role in sight.procedure.roles}
    return tuple(
        Shown(
            sight.plain(titles[role]),
            f"{bound.application} on {bound.host}, {bound.version or 'version not known'}",
        )
        for role, bound in sight.state.started.bindings.items()
        if role in titles
    )


def _opens(sight: Sight, step: Step) -> tuple[Shown, ...]:
    """The exposures that this very step opens, with how long they are expected to last."""
    rows = []
    for change in step.opens:
        kind = sight.procedure.exposure(change.exposure)
        lasts = f"about {spoken(kind.expected)}" if kind.expected else "no length is known"
        rows.append(Shown(sight.plain(kind.title), f"{lasts}. {sight.say(kind.text)}"))
    return tuple(rows)


def _way_back(sight: Sight, step: Step) -> tuple[WayBackRow, ...]:
    gates = [gate for gate in step.needs if isinstance(gate, WayBackGate) and applies(gate, sight.state)]
    return tuple(row for gate in gates for row in gate_row(sight, step, gate).way_back)
