"""The same request many times in the same moment: one effect, and everybody is answered the same."""

from functools import partial

import pytest

from tests.api.caller import Caller
from tests.services.night import at_once
from upgrades.models import Run, RunEvent, StoredAnswer

TIMES = 8


def send(api, run, head, text, key):
    answer = api.post(f"runs/{run}/note", {"text": text}, key=key, match=head)
    return answer.status_code, answer.content, answer.headers.get("Idempotency-Replayed", "")


@pytest.mark.bad_input("AP05")
def test_one_key_sent_many_times_at_once_acts_once(real_night):
    api = Caller(real_night.operator)
    head = f'"{Run.objects.get(pk=real_night.run).head}"'
    for round_ in range(3):
        head = f'"{Run.objects.get(pk=real_night.run).head}"'
        act = partial(send, api, real_night.run, head, f"Look {round_}.", f"key-{round_}")
        answers = at_once(*[act] * TIMES)
        assert {(status, body) for status, body, _ in answers} == {(200, answers[0][1])}
        assert sorted(replayed for _, _, replayed in answers) == ["", *["true"] * (TIMES - 1)]
        assert RunEvent.objects.filter(run=real_night.run, kind="note.added").count() == round_ + 1


@pytest.mark.bad_input("AP05")
def test_one_key_for_two_things_at_once_does_one_of_them(real_night):
    api = Caller(real_night.operator)
    head = f'"{Run.objects.get(pk=real_night.run).head}"'
    acts = [partial(send, api, real_night.run, head, text, "key") for text in ("One.", "Another.")]
    statuses = sorted(status for status, _, _ in at_once(*acts))
    assert statuses == [200, 422]
    assert RunEvent.objects.filter(run=real_night.run, kind="note.added").count() == 1
    assert StoredAnswer.objects.count() == 1


@pytest.mark.parametrize("round_", range(3))
def test_of_many_keys_with_one_version_at_once_only_one_acts(real_night, round_):
    """If-Match is looked at under the run's lock: nobody acts on what was no longer so."""
    api = Caller(real_night.operator)
    head = f'"{Run.objects.get(pk=real_night.run).head}"'
    acts = [partial(send, api, real_night.run, head, f"Look {n}.", f"{round_}-{n}") for n in range(TIMES)]
    statuses = sorted(status for status, _, _ in at_once(*acts))
    assert statuses == [200, *[412] * (TIMES - 1)]
