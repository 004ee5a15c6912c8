"""One walk, checked, and what it reached: what is told of it between processes."""

import json
import traceback

from tests.simulation.checker.invariants import check, differences
from tests.simulation.walk import Walk

CLOCKS_EVERY = 10  # of so many walks one is walked again with other clocks


def walk(seed, name=None):
    """What became of one walk: its seed, what was found, and what it reached."""
    one = Walk(seed, name=name)
    tale = None
    try:
        tale = one.play()
        found = [str(violation) for violation in check(tale)]
        if seed % CLOCKS_EVERY == 0:
            found += [str(one) for one in differences(tale, Walk(seed, name=name, skewed=True).play())]
    except Exception:
        found = [traceback.format_exc()]
    runs = [run for run in one.desk.runs if run.state is not None]
    return {
        "seed": seed,
        "name": one.name,
        "found": found,
        "events": sum(len(run.events) for run in runs),
        "endings": [(run.state.started.procedure, run.state.ending or str(run.state.status)) for run in runs],
        "steps": sorted({step for run in runs for step in _begun(run)}),
        "tale": tale if found else None,
    }


def _begun(run):
    """Texts and steps that the run has begun, also those that it left for another text."""
    of = {}
    for text, step in _entered(run):
        of.setdefault((text, step), True)
    return of


def _entered(run):
    text = run.state.started.procedure
    for stored in run.events:
        event = json.loads(stored["text"])
        if event["kind"] == "run.gone-over":
            text = event["body"]["procedure"]
        elif event["kind"] == "step.begun":
            yield text, event["body"]["step"].partition("--")[0]


def walked(given):
    """`walk` for a pool of processes: seed and procedure in one."""
    return walk(*given)
