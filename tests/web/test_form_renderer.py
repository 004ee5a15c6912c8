"""Controls are written as Django's own templates write them, whatever stands in them."""

import pytest
from django import forms
from django.forms.renderers import DjangoTemplates, get_default_renderer
from django.utils.safestring import SafeString

from upgrades.web.form_renderer import FormRenderer
from upgrades.web.forms import FORMS

VALUES = [
    "",
    "0",
    "plain",
    "two\nlines\n",
    "\nbegins with a line end",
    "<b a='x' b=\"y\">&amp;",
    "\x00\x1b‮",
    "7",
]


def drawn(form, renderer):
    form.renderer = renderer
    return [str(field) for field in form]


@pytest.mark.parametrize("form_class", FORMS.values(), ids=lambda form_class: form_class.verb)
def test_the_forms_of_a_run_look_as_django_draws_them(form_class):
    for value in VALUES:
        sent = dict.fromkeys(form_class.base_fields, value)
        for options in ({"initial": sent}, {"data": sent}, {}):
            assert drawn(form_class(**options), FormRenderer()) == drawn(
                form_class(**options), DjangoTemplates()
            )


@pytest.mark.parametrize(
    "widget",
    [
        forms.TextInput,
        forms.HiddenInput,
        forms.NumberInput,
        forms.EmailInput,
        forms.URLInput,
        forms.PasswordInput,
        forms.CheckboxInput,
        forms.Textarea,
    ],
)
@pytest.mark.parametrize("value", [None, False, True, 0, 7, 1234567.5, SafeString("<i>"), *VALUES], ids=repr)
def test_every_control_is_as_django_draws_it(widget, value):
    attrs = {
        "required": True,
        "disabled": False,
        "data-<x>": '"',
        "rows": 1234,
        "aria-label": SafeString("<b>"),
    }
    ours, theirs = (
        widget().render("na<me", value, attrs=attrs, renderer=renderer)
        for renderer in (FormRenderer(), DjangoTemplates())
    )
    assert ours == theirs
    assert isinstance(ours, SafeString)


def test_pages_draw_their_forms_with_it():
    assert isinstance(get_default_renderer(), FormRenderer)
