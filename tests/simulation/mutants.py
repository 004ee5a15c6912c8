"""Cores with a fault planted in them. A checker that does not find these is worth nothing.

Each mutant is a function that plants its fault with `patch(object, name, value)`. `procedures` are those in which it
can show.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from upgrades.domain import event_rule, gates, run, run_events, run_state
from upgrades.domain.procedure import Procedure, WayBackGate
from upgrades.domain.run_state import RunState
from upgrades.domain.verdict import met

HA = ("config-server-ha", "config-server-ha-same-schema", "config-server-proxy-ha")
ANY = ("config-server-standalone", "lca", "log-database-schema", "rollback-folders")
SIGNED = ("config-server-ha", "log-database-schema", "rollback-folders", "config-server-standalone")
Patch = Callable[[object, str, object], None]


@dataclass(frozen=True)
class Mutant:
    plant: Callable[[Patch], None]
    procedures: tuple[str, ...]
    caught_as: frozenset[str]  # the invariants that it breaks; one of them has to be named

    @property
    def name(self):
        return self.plant.__name__


MUTANTS = []


def mutant(procedures, *caught_as):
    def register(plant):
        MUTANTS.append(Mutant(plant, procedures, frozenset(caught_as)))
        return plant

    return register


def _without(kept):
    """A `_report` that lets `kept` decide what is behind the mark."""
    return lambda watch, seen: watch is not None and kept(watch, seen)


@mutant(HA, "I1")
def a_line_from_before_the_mark_counts(patch):
    same_server = _without(lambda watch, seen: seen.application == watch.application)
    patch(run, "is_behind_watermark", same_server)


@mutant(HA, "I1")
def a_line_of_another_server_counts(patch):
    true = run.is_behind_watermark
    any_server = _without(lambda watch, seen: true(replace(watch, application=seen.application), seen))
    patch(run, "is_behind_watermark", any_server)


@mutant(HA, "I3")
def a_line_counts_twice(patch):
    count = iter(range(10**9))
    patch(run, "_place", lambda seen: ("somewhere", next(count)))


@mutant(HA, "I2")
def every_third_line_is_dropped(patch):
    true, count = run.is_behind_watermark, iter(range(10**9))
    patch(run, "is_behind_watermark", lambda watch, seen: true(watch, seen) and next(count) % 3 > 0)


@mutant(HA, "I1")
def a_doubt_opens_a_gate(patch):
    true = gates.follow_rule
    patch(gates, "_followed", lambda *given: replace(true(given[0], given[1], dict(given[2])), doubts=()))


@mutant(HA, "I1")
def lines_count_in_the_order_of_their_arrival(patch):
    gates._followed.cache_clear()
    patch(event_rule, "in_file_order", lambda seen: list(dict.fromkeys(seen)))


@mutant(HA, "I11")
def nobody_is_told_what_speaks_against_a_verdict(patch):
    patch(run, "_contradictions", lambda _procedure, _state: [])


@mutant(HA, "I12")
def the_clocks_of_servers_decide(patch):
    true = run._report

    def by_the_clock(procedure, state, events):
        begun = state.started_at.replace(tzinfo=None).isoformat()
        since = tuple(one for one in events if getattr(one, "logged_at", begun) >= begun)
        return true(procedure, state, since)

    patch(run, "_report", by_the_clock)


@mutant(HA, "I1")
def half_of_the_proof_opens_the_clients_gate(patch):
    true = gates._clients

    def half(gate, state, recorded):
        found = true(gate, state, recorded)
        joining = state.totals.get(state.application(gate.joining))
        return met("enough") if joining is not None and joining.total >= 40 else found

    patch(gates, "_clients", half)


@mutant(SIGNED, "I4", "I1")
def ones_own_signature_counts(patch):
    for module in (run, gates, run_state):
        patch(module, "barred", lambda _state, _person: "")


@mutant(SIGNED, "I4", "I1")
def one_signature_counts_twice(patch):
    true = gates.signers

    def twice(signatures):
        return [
            replace(one, id=f"{one.id}{more}", right_of=f"{one.right_of}{more}")
            for one in true(signatures)
            for more in ("", " again")
        ]

    patch(gates, "signers", twice)


@mutant(SIGNED, "I1", "I4")
def a_signature_outlives_what_it_covered(patch):
    for name in ("shown_digest", "digest"):
        patch(gates, name, lambda *_given: "0" * 64)
    patch(run, "digest_to_sign", lambda *_given: "0" * 64)


@mutant(SIGNED, "I1", "I4")
def time_approves(patch):
    true = gates._approval

    def after_a_while(procedure, state, step, gate, recorded):
        found = true(procedure, state, step, gate, recorded)
        return met("nobody objected") if recorded.expired is not None else found

    patch(gates, "_approval", after_a_while)


@mutant(SIGNED, "I4")
def whoever_signed_carries_it_out(patch):
    patch(run, "_not_signer", lambda _state, _step, _by: None)


@mutant(ANY, "I1")
def a_confirmation_needs_no_pass(patch):
    patch(gates, "_confirm", lambda _recorded: met("never mind"))


@mutant(ANY, "I1")
def evidence_is_not_asked_for(patch):
    patch(gates, "_evidence", lambda _recorded: met("it will be somewhere"))


@mutant(ANY, "I1")
def an_old_answer_of_a_probe_counts(patch):
    patch(gates, "is_before_silence", lambda _state, _host, _answer: False)
    patch(run, "is_before_silence", lambda _state, _host, _answer: False)


@mutant(ANY, "I1")
def an_override_proves_a_way_back(patch):
    true = gates.verdict

    def generous(procedure, state, step, gate):
        return met("open") if isinstance(gate, WayBackGate) else true(procedure, state, step, gate)

    patch(gates, "verdict", generous)


@mutant(ANY, "I8")
def the_next_step_is_passed_over(patch):
    true = Procedure.after

    def one_too_far(procedure, step):
        found = true(procedure, step)
        beyond = true(procedure, found.id) if found is not None else None
        return found if beyond is None else beyond

    patch(Procedure, "after", one_too_far)


@mutant(ANY, "I8")
def a_run_on_hold_goes_on(patch):
    patch(run, "_not_held", lambda _state: None)


@mutant(ANY, "I4")
def what_is_never_waived_is_waived(patch):
    patch(run, "_never_waived", lambda _state, _step, _command: "")


@mutant(ANY, "I1")
def an_abort_forgets_what_is_owed(patch):
    patch(RunState, "unowned", property(lambda _state: ()))


@mutant(("lca", "config-server-ha"), "I8")
def a_duty_is_not_entered(patch):
    patch(run, "_duties", lambda _procedure, _state, _step, _moment: [])


@mutant(("config-server-standalone",), "I2")
def the_way_back_loses_what_is_open(patch):
    patch(run, "inheritance", lambda _procedure, _state, _run: [])


@mutant(HA, "I7")
def reading_the_record_loses_a_mark(patch):
    true = run_events.from_body

    def forgetful(kind, body, event_format=1):
        return true(kind, {**body, "watermarks": {}} if "watermarks" in body else body, event_format)

    patch(run_events, "from_body", forgetful)


@mutant(ANY, "I7")
def a_fact_is_forgotten(patch):
    true = run_state._apply

    def forgetful(state, recorded):
        kept = recorded.event.kind == "fact.set" and recorded.seq % 5 == 0
        return state if kept else true(state, recorded)

    patch(run_state, "_apply", forgetful)
