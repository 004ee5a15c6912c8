"""The application with a fault planted in it. A checker that does not name these is worth nothing.

Each mutant is a function that plants its fault with `patch(object, name, value)`; `scenes` of the workload are those in which it
shows, `caught_as` is the invariant that the checker must name, `words` stand in what it says. Where the database itself would
make the fault impossible, `weakened` takes that guard away for as long as the mutant lives.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

from django.db import connection, transaction
from django.utils import timezone

from upgrades import tasks
from upgrades.adapters import event_store
from upgrades.domain import event_rule, gates, run, run_state
from upgrades.domain.checkpoint import Tree
from upgrades.domain.policy import Signer
from upgrades.domain.procedure import Procedure
from upgrades.domain.refusal import NotAllowed, Refused
from upgrades.models import CommandReceipt, LogFile, LogLine, Run, RunEvent
from upgrades.queries import topology
from upgrades.queries.run_page import servers
from upgrades.services import agents, checkpoints, claims, evidence, observations, projections, runs

Patch = Callable[[object, str, object], None]


@dataclass(frozen=True)
class Mutant:
    plant: Callable[[Patch], None]
    scene: str
    caught_as: str
    words: str
    weakened: Callable[[], contextlib.AbstractContextManager]

    @property
    def name(self):
        return self.plant.__name__


MUTANTS = []


def mutant(scene, caught_as, words, weakened=contextlib.nullcontext):
    def register(plant):
        MUTANTS.append(Mutant(plant, scene, caught_as, words, weakened))
        return plant

    return register


# Guards of the database.


def _sql(text):
    with connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchone()[0] if cursor.description else None


def unchained(function, text):
    """The function that appends to a chain forgets the hash of the one before."""

    @contextlib.contextmanager
    def weakened():
        before = _sql(f"SELECT pg_get_functiondef('{function}'::regproc)")
        linked = rf"last_hash || E'\n' || {text}"
        assert linked in before
        _sql(before.replace(linked, text))
        try:
            yield
        finally:
            _sql(before)

    return weakened


@contextlib.contextmanager
def changeable():
    """The events of runs can be changed."""
    _sql("ALTER TABLE upgrades_runevent DISABLE TRIGGER record_is_append_only")
    try:
        yield
    finally:
        _sql("ALTER TABLE upgrades_runevent ENABLE TRIGGER record_is_append_only")


@contextlib.contextmanager
def lines_come_twice():
    """Nothing keeps a line from being stored again."""
    table, name = "upgrades_logline", "a_line_is_stored_once"
    guard = _sql(f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = '{name}'")
    _sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    try:
        yield
    finally:
        _sql(f"DELETE FROM {table}")
        _sql(f"ALTER TABLE {table} ADD CONSTRAINT {name} {guard}")


# Acts of people.


@mutant("acts", "I3", "is there 2 times")
def a_run_has_no_lock(patch):
    """Two who act at once both find the run as it was before, and each takes the next free place in the record."""
    both, met = threading.Barrier(2), threading.local()
    true = event_store.append

    def unlocked(run_id):
        found = Run.objects.select_related("procedure", "environment").get(pk=run_id)
        if threading.current_thread() is not threading.main_thread() and not hasattr(met, "once"):
            met.once = both.wait(60)
        return found

    def at_the_next_place(run_id, recorded):
        Run.objects.select_for_update().get(pk=run_id)
        last = RunEvent.objects.filter(run=run_id).count()
        return true(run_id, [replace(item, seq=last + 1 + place) for place, item in enumerate(recorded)])

    patch(runs, "_locked", unlocked)
    patch(event_store, "append", at_the_next_place)


@mutant("acts", "I6", "was acknowledged and is not stored")
def an_act_is_acknowledged_before_it_is_kept(patch):
    true = runs._act

    def hasty(run_id, *given):
        try:
            return true(run_id, *given)
        except Refused:
            raise
        except Exception:  # whatever becomes of it: somebody waits for the answer
            return runs.Done(run_id, 0)

    patch(runs, "_act", hasty)


@mutant("acts", "I6", "was acknowledged and is not stored")
def no_receipt_is_kept(patch):
    forgetful = SimpleNamespace(filter=CommandReceipt.objects.filter, create=lambda **_: None)
    patch(runs, "CommandReceipt", SimpleNamespace(objects=forgetful))


@mutant("acts", "I6", "receipts")
def a_command_that_comes_again_acts_again(patch):
    def once_more(command_id, **values):
        CommandReceipt.objects.update_or_create(command_id=command_id, defaults=values)

    patch(runs, "_earlier", lambda *_: None)
    patch(
        runs,
        "CommandReceipt",
        SimpleNamespace(objects=SimpleNamespace(filter=CommandReceipt.objects.filter, create=once_more)),
    )


@mutant("acts", "I6", "is stored and no event")
def a_file_stays_though_it_was_refused(patch):
    def kept(row, attach, by, command_id, head):
        row.save()
        command = replace(attach, evidence=row.pk)
        return runs.act(run_id=row.run_id, command=command, by=by, command_id=command_id, head=head)

    patch(evidence, "_record", kept)


@mutant("acts", "I6", "was refused and is stored")
def a_refused_act_counts_as_done(patch):
    true = runs._act

    def receipted(run_id, command, by, command_id, *given):
        try:
            return true(run_id, command, by, command_id, *given)
        except NotAllowed:
            CommandReceipt.objects.create(
                command_id=command_id, run_id=run_id, actor_id=by.pk, act="", seq=1, at=timezone.now()
            )
            raise

    patch(runs, "_act", receipted)


@mutant("acts", "I11", "were refused for want of a right")
def what_is_refused_leaves_no_trace(patch):
    patch(runs, "record_refusal", lambda *_: None)


@mutant("acts", "I8", "while the run was on hold")
def a_run_on_hold_goes_on(patch):
    patch(run, "_not_held", lambda _state: None)


@mutant("acts", "I8", "after the end of the run")
def a_run_that_is_over_goes_on(patch):
    patch(run_state.RunState, "is_over", property(lambda _state: False))


@mutant("acts", "I8", "was closed or skipped")
def a_step_is_passed_over(patch):
    true = Procedure.after

    def one_too_far(procedure, step):
        found = true(procedure, step)
        return (true(procedure, found.id) if found is not None else None) or found

    patch(Procedure, "after", one_too_far)


@mutant("acts", "I1", "was not confirmed")
def a_confirmation_needs_no_pass(patch):
    patch(gates, "_confirm", lambda _recorded: gates.met("Never mind."))


@mutant("acts", "I1", "nothing was attached")
def evidence_is_not_asked_for(patch):
    patch(gates, "_evidence", lambda _recorded: gates.met("It will be somewhere."))


# The record.


@mutant("acts", "I5", "the chain breaks", weakened=unchained("append_run_events", "p_texts[i]"))
def events_are_not_chained(_patch):
    """It is the function in the database that does it."""


@mutant("leases", "I5", "the chain breaks at entry", weakened=unchained("append_register", "entry"))
def books_are_not_chained(_patch):
    """It is the function in the database that does it."""


@mutant("leases", "I11", "is not in the register")
def a_start_is_not_registered(patch):
    patch(runs.register, "run_started", lambda *_: None)


@mutant("acts", "I5", "the chain breaks", weakened=changeable)
def a_note_is_mended_afterwards(patch):
    true = event_store.append

    def mended(run_id, recorded):
        head = true(run_id, recorded)
        for row in RunEvent.objects.filter(run=run_id, kind="note.added"):
            row.text = row.text.replace("quiet", "calm")
            row.save(update_fields=["text"])
        return head

    patch(event_store, "append", mended)


@mutant("acts", "I5", "is not that of its leaves")
def a_checkpoint_has_another_root(patch):
    true = Tree.append
    patch(Tree, "append", lambda tree, text: true(tree, text.upper()))


@mutant("acts", "I5", "left out")
def a_checkpoint_leaves_the_runs_out(patch):
    true = checkpoints._grown

    def of_books(sealed):
        return [chain for chain in true(sealed) if chain.leaf.subject.startswith("book ")]

    patch(checkpoints, "_grown", of_books)


# What is written beside the record.


@mutant("acts", "I7", "in its row and")
def the_rows_of_steps_are_forgotten(patch):
    patch(projections, "_steps", lambda *_: None)


@mutant("acts", "I7", "in its rows and")
def the_rows_of_burdens_are_forgotten(patch):
    patch(projections, "_burdens", lambda *_: None)


@mutant("acts", "I7", "its row says status")
def the_status_of_a_run_lags_behind(patch):
    true = projections._summary

    def late(row, *given):
        before = row.status
        true(row, *given)
        row.status = before
        row.save(update_fields=["status"])

    patch(projections, "_summary", late)


@mutant("acts", "I7", "still holds")
def a_run_that_is_over_keeps_its_servers(patch):
    patch(claims, "release", lambda *_, **__: None)


@mutant("leases", "I7", "is open and holds no server")
def a_run_takes_no_servers(patch):
    patch(claims, "take", lambda *_: None)


# Logs.


@mutant("logs", "I2", "was read over and is not stored")
def the_cursor_moves_before_its_lines_are_stored(patch):
    true = LogLine.objects.bulk_create

    def afterwards(rows, **options):
        transaction.on_commit(lambda: true(rows, **options))
        return rows

    patch(LogLine.objects, "bulk_create", afterwards)


@mutant("logs", "I2", "was read over and is not stored")
def every_second_event_is_dropped(patch):
    true, seen = agents._row, []

    def some(file, record, *given):
        seen.append(record)
        return true(file, record, *given) if len(seen) % 2 else None

    patch(agents, "_row", some)


@mutant("logs", "I2", "is not what the file has there")
def stored_lines_are_tidied(patch):
    true = agents._Bytes.of
    patch(agents._Bytes, "of", lambda data, record: true(data, record).replace(b"synthetic", b"Synthetic"))


@mutant("logs", "I2", "was passed over")
def a_run_passes_over_what_is_stored(patch):
    true = observations._lines

    def from_the_second_on(row, state, watch):
        files = set()
        for seen in true(row, state, watch):
            if seen.file in files:
                yield seen
            files.add(seen.file)

    patch(observations, "_lines", from_the_second_on)


@mutant("logs", "I3", "is stored 2 times", weakened=lines_come_twice)
def an_answer_that_comes_again_is_stored_again(patch):
    true = agents._take_part

    def from_where_it_says(application, part, now):
        anew = agents.ParserState.initial(
            application_type=agents.type_number(application.type), file_name=part.name, offset=part.start
        )
        known = LogFile.objects.filter(application=application, identity=part.file, state="open")
        known.update(cursor=part.start, parser_state=anew.to_json())
        return true(application, part, now)

    patch(agents, "_take_part", from_where_it_says)


@mutant("logs", "I2", "no gap says so")
def a_file_shrinks_and_nobody_is_told(patch):
    def silently(file, part, _now):
        file.state = part.state
        file.save(update_fields=["state"])
        return 0

    patch(agents, "_lose", silently)


@mutant("logs", "I1", "before the watermark")
def a_line_from_before_the_step_opens_its_gate(patch):
    true = observations._behind_watermark
    unmarked = {"gaps": 0}
    patch(
        observations,
        "_behind_watermark",
        lambda row, watch: true(row, replace(watch, watermark=unmarked)),
    )
    patch(run, "is_behind_watermark", lambda watch, _seen: watch is not None)


@mutant("logs", "I1", "was not set aside")
def what_is_missing_of_a_log_does_not_matter(patch):
    def trusting(*given):
        return replace(event_rule.follow_rule(given[0], given[1], dict(given[2])), doubts=())

    patch(gates, "_followed", trusting)


@mutant("logs", "I1", "the rule asks for")
def half_of_a_rule_is_enough(patch):
    true = event_rule._track

    def last_part(outcome, facts):
        track = true(outcome, facts)
        return replace(track, stations=track.stations[-1:])

    patch(event_rule, "_track", last_part)


@mutant("logs", "I9", "was due and never came")
def nobody_looks_after_runs(patch):
    """A task is taken from the queue before its work is done, and nothing finds what a worker left undone."""
    patch(tasks, "Run", SimpleNamespace(objects=Run.objects.none()))


@mutant("leases", "I3", "all the time")
def a_worker_without_the_lease_is_believed(patch):
    true = agents.followed
    patch(agents, "followed", lambda agent_id, _lease: true(agent_id, None))


@mutant("silence", "I10", "still did not say so")
def a_silent_agent_is_shown_as_if_it_spoke(patch):
    for module in (servers, topology):
        patch(module, "is_stale", lambda *_, **__: False)


@mutant("clocks", "I12", "differ only in clocks")
def the_clocks_of_servers_decide(patch):
    true = observations._lines

    def since_it_began(row, state, watch):
        begun = state.steps[run_state.watch_key(watch.id)[0]].begun_at.replace(tzinfo=None)
        for seen in true(row, state, watch):
            if getattr(seen, "logged_at", "") >= begun.isoformat():
                yield seen

    patch(observations, "_lines", since_it_began)


@mutant("clocks", "I11", "the clock of agent")
def a_clock_that_is_off_is_not_noticed(patch):
    true = agents._answered
    patch(agents, "_answered", lambda agent, _skew, now: true(agent, 0.0, now))


# The point of no return.


@mutant("signatures", "I4", "had started or carried out")
def ones_own_signature_counts(patch):
    """The operator of these runs is an approver, too."""
    for module in (run, gates, run_state):
        patch(module, "barred", lambda _state, _person: "")


@mutant("signatures", "I4", "of 2 signatures")
def one_signature_counts_twice(patch):
    true = gates.signers

    def twice(signatures):
        return [
            replace(one, id=f"{one.id}{more}", right_of=f"{one.right_of}{more}")
            for one in true(signatures)
            for more in ("", " again")
        ]

    patch(gates, "signers", twice)


@mutant("signatures", "I4", "was never shown")
def whatever_is_signed_counts(patch):
    class Anything(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, _other):
            return True

        def __ne__(self, _other):
            return False

    patch(run, "digest_to_sign", lambda *_: Anything())


@mutant("signatures", "I4", "without the role")
def anybody_may_sign(patch):
    def able(_state, by, policy, _act):
        return [Signer(by.id, frozenset(policy.rights), by.id)]

    patch(run, "_need_second", able)


@mutant("signatures", "I1", "no agent had answered")
def an_agent_need_not_have_looked(patch):
    patch(gates, "_probe", lambda *_: gates.met("It will be so."))
