"""A moment on a page: the text without the script, what the script needs, and nothing where there is none."""

from datetime import UTC, date, datetime

import pytest
from django.template import Context, Template

AT = datetime(2026, 3, 1, 14, 2, 11, 382000, tzinfo=UTC)


def shown(source, at):
    return Template(source).render(Context({"at": at}))


@pytest.mark.parametrize(
    ("show", "text"),
    [
        ("", "1 Mar 2026 14:02"),
        ("time", "14:02:11"),
        ("ms", "14:02:11"),
        ("minute", "14:02"),
        ("date", "1 Mar 2026"),
    ],
)
def test_a_moment_says_as_much_as_is_asked_for(show, text):
    asked = f' data-show="{show}"' if show else ""

    found = shown(f'{{% moment at "{show}" %}}', AT)

    assert found == f'<time datetime="2026-03-01T14:02:11.382000+00:00"{asked}>{text}</time>'


def test_the_text_is_in_the_zone_of_the_settings_and_the_mark_stays_as_it_was(settings):
    settings.TIME_ZONE = "Europe/Berlin"

    assert (
        shown('{% moment at "minute" %}', AT)
        == '<time datetime="2026-03-01T14:02:11.382000+00:00" data-show="minute">15:02</time>'
    )


def test_a_day_has_no_zone():
    assert shown('{% moment at "date" %}', date(2026, 12, 31)) == (
        '<time datetime="2026-12-31" data-show="date">31 Dec 2026</time>'
    )


@pytest.mark.parametrize("at", [None, ""])
def test_no_moment_is_nothing(at):
    assert shown("{% moment at %}", at) == ""
