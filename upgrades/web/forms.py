"""The forms of a run's page: one small class for each verb. Each turns what was sent into the core's command.

A form carries the id of its command, so that a second click acts once, and the step and visit that its sender saw,
so that a late click is refused instead of hitting another step. What a text must hold is for the core to say; its
refusals come back to the field that they are about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID, uuid4

from django import forms
from django.contrib.auth.models import AbstractUser
from django.core.files.uploadedfile import UploadedFile
from django.core.validators import RegexValidator
from django.http import HttpRequest, QueryDict

from upgrades.domain import run as core
from upgrades.domain.refusal import BadInput
from upgrades.services import evidence, holding, runs
from upgrades.services.runs import Done
from upgrades.services.sign_in import Proof

MOST = 2000
# What the core calls a text, and the field that holds it.
FIELD_OF = {"The reason": "reason", "The text": "text", "The comment": "comment", "The note": "text"}
TWICE = "This form came with the same field more than once, so it is not clear what is meant. Load the page again."
BROKEN = "This form is not complete any more. Load the page again and repeat your act."


class Hidden(forms.CharField):
    """What the page put into the form, not its reader."""

    widget = forms.HiddenInput

    def __init__(self, pattern: str = r"[A-Za-z0-9:._-]{0,100}", **options: Any) -> None:
        options.setdefault("required", False)
        super().__init__(validators=[RegexValidator(rf"\A(?:{pattern})\Z", BROKEN)], **options)


class Whole(Hidden):
    """A whole number in ASCII digits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(pattern=r"[0-9]{1,9}", required=True, **options)

    def clean(self, value: Any) -> int:
        return int(super().clean(value))


def text_field(label: str, help_text: str = "", *, least: int = 0, rows: int = 3) -> forms.CharField:
    """A text of several lines. The browser is told the limits; the core holds to them."""
    limits = {"rows": rows, "maxlength": MOST} | ({"minlength": least} if least else {})
    return forms.CharField(
        label=label, help_text=help_text, required=least > 0, widget=forms.Textarea(attrs=limits)
    )


def reason_field(help_text: str, *, least: int = core.REASON) -> forms.CharField:
    return text_field("Reason", help_text, least=least)


class ActForm(forms.Form):
    """What all have: a verb, the words on its button, and the id of the command."""

    verb: ClassVar[str] = ""
    button: ClassVar[str] = ""
    tone: ClassVar[str] = "main"
    fixed: ClassVar[tuple[str, ...]] = ()  # the hidden fields that tell one form of a verb from another

    command_id = forms.UUIDField(
        widget=forms.HiddenInput, error_messages={"invalid": BROKEN, "required": BROKEN}
    )

    def __init__(self, *arguments: Any, key: str = "", **options: Any) -> None:
        self.key = key
        self.proof: Proof | None = None  # that whoever sent it is there; signatures need it
        options["auto_id"] = f"{key}-%s"
        super().__init__(*arguments, **options)

    @classmethod
    def key_for(cls, values: Mapping[str, Any]) -> str:
        """The id of the form on the page, the same before and after it was sent."""
        parts = [cls.verb, *(str(values.get(name, "")) for name in cls.fixed)]
        return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:80]

    @property
    def takes_file(self) -> bool:
        return self.is_multipart()

    def command(self) -> core.Command:
        """The command that the form stands for. Only for a form that is valid."""
        raise NotImplementedError

    def send(self, run_id: int, by: AbstractUser) -> Done:
        """Carry it out; a `Refused` goes to the caller, after its place in the form is marked."""
        if not self.is_valid():
            raise BadInput(self._mistakes())
        try:
            return self.carry_out(run_id, by, self.cleaned_data["command_id"])
        except BadInput as refusal:
            name = FIELD_OF.get(refusal.field, refusal.field)
            if name in self.fields and not self.fields[name].widget.is_hidden:
                self.add_error(name, refusal.message)
            raise

    def carry_out(self, run_id: int, by: AbstractUser, command_id: UUID) -> Done:
        return runs.act(run_id=run_id, command=self.command(), by=by, command_id=command_id, proof=self.proof)

    def _mistakes(self) -> str:
        """All mistakes in one sentence each, for those who see only the message."""
        told = []
        for name, mistakes in self.errors.items():
            field = self.fields.get(name)
            if field is None or field.widget.is_hidden:
                return BROKEN
            told += [f"{field.label}: {mistake}" for mistake in mistakes]
        return f"Nothing was changed. {' '.join(told)}"


class StepForm(ActForm):
    """An act on the current step."""

    step = Hidden()
    visit = Whole()

    @property
    def seen(self) -> dict[str, Any]:
        return {"step": self.cleaned_data["step"], "visit": self.cleaned_data["visit"]}


class BeginForm(StepForm):
    verb, button = "begin", "Begin"

    def command(self) -> core.Command:
        return core.Begin(**self.seen)


class CompleteForm(StepForm):
    verb, button = "complete", "Complete"

    def command(self) -> core.Command:
        return core.Complete(**self.seen)


class ConfirmForm(StepForm):
    verb, button, tone = "confirm", "Record the answer", ""
    fixed = ("gate",)
    ANSWERS = (("pass", "Pass"), ("fail", "Fail"), ("not-tested", "Not tested"))

    gate = Hidden()
    answer = forms.ChoiceField(choices=ANSWERS, widget=forms.RadioSelect)
    text = text_field("What you saw", "Needed unless the answer is pass; others will read it.", rows=2)

    def command(self) -> core.Command:
        data = self.cleaned_data
        return core.Confirm(**self.seen, gate=data["gate"], answer=data["answer"], text=data["text"])


class ClientsForm(ConfirmForm):
    """The other proof that all clients have moved. The same verb: the gate tells the two apart."""

    ANSWERS = (
        ("pass", "Yes, every client shows its reconnection"),
        ("fail", "No, clients are missing"),
        ("not-tested", "Not looked at; go by the totals"),
    )
    answer = forms.ChoiceField(
        label="Have all clients reconnected?", choices=ANSWERS, widget=forms.RadioSelect
    )
    text = text_field(
        "How you saw it", "Which applications, and where their reconnection shows.", least=3, rows=2
    )


class AttachForm(StepForm):
    verb, button, tone = "attach", "Attach", ""
    fixed = ("gate",)

    gate = Hidden()
    file = forms.FileField(
        label="File",
        required=False,
        allow_empty_file=True,
        help_text="It is stored as it is, with its SHA-256; nobody can exchange it later.",
    )
    text = text_field("In words", "What it shows, or where it lies.", rows=2)

    def accept(self, accepts: frozenset[str]) -> None:
        """Leave out what the gate does not take."""
        if accepts and "file" not in accepts:
            del self.fields["file"]

    def command(self) -> core.Command:
        data = self.cleaned_data
        return core.Attach(**self.seen, gate=data["gate"], text=data["text"])

    def carry_out(self, run_id: int, by: AbstractUser, command_id: UUID) -> Done:
        upload: UploadedFile[bytes] | None = self.cleaned_data.get("file")
        if upload is None:
            return super().carry_out(run_id, by, command_id)
        return evidence.attach_file(
            run_id=run_id,
            **self.seen,
            gate=self.cleaned_data["gate"],
            upload=upload,
            text=self.cleaned_data["text"],
            by=by,
            command_id=command_id,
        )


class SignForm(StepForm):
    verb, button = "sign", "Sign"
    fixed = ("gate",)

    gate = Hidden()
    digest = Hidden(pattern=r"[0-9a-f]{64}", required=True)
    comment = text_field("Comment", rows=2)

    def command(self) -> core.Command:
        data = self.cleaned_data
        return core.Sign(**self.seen, gate=data["gate"], digest=data["digest"], comment=data["comment"])


class RejectForm(StepForm):
    verb, button, tone = "reject", "Reject", "danger"
    fixed = ("gate",)

    gate = Hidden()
    digest = Hidden(pattern=r"[0-9a-f]{64}", required=True)
    reason = reason_field("What speaks against it, and what would have to change.")

    def command(self) -> core.Command:
        data = self.cleaned_data
        return core.Reject(**self.seen, gate=data["gate"], digest=data["digest"], reason=data["reason"])


class AskAgainForm(StepForm):
    verb, button, tone = "ask-again", "Ask again", ""
    fixed = ("gate",)

    gate = Hidden()
    reason = reason_field("What is different now. It is a new request; nobody has signed it yet.")

    def command(self) -> core.Command:
        data = self.cleaned_data
        return core.AskAgain(**self.seen, gate=data["gate"], reason=data["reason"])


class AskOverrideForm(StepForm):
    verb, button, tone = "ask-override", "Ask for an emergency override", "danger"
    fixed = ("gate",)

    gate = Hidden()
    reason = reason_field(
        "Why it cannot wait for the signatures. A second person who has not worked on this run has to agree; the run "
        "stays marked for ever, and an auditor reviews it."
    )

    def command(self) -> core.Command:
        data = self.cleaned_data
        return core.AskOverride(**self.seen, gate=data["gate"], reason=data["reason"])


class TakeStepForm(StepForm):
    verb, button, tone = "take-step", "Take this step", ""

    reason = text_field("Reason", "Needed when somebody else holds it (20 characters).", rows=2)

    def command(self) -> core.Command:
        return core.TakeStep(**self.seen, reason=self.cleaned_data["reason"])


class HandOverForm(StepForm):
    verb, button, tone = "hand-over", "Hand it over", ""

    to = forms.CharField(label="To whom", max_length=80, widget=forms.Select)
    reason = text_field("Reason", rows=2)

    def offer(self, choices: list[tuple[str, str]]) -> None:
        """Show these people as whom it can be handed over to."""
        self.fields["to"].widget = forms.Select(choices=choices)

    def carry_out(self, run_id: int, by: AbstractUser, command_id: UUID) -> Done:
        data = self.cleaned_data
        return holding.hand_over(
            run_id=run_id, **self.seen, to=data["to"], reason=data["reason"], by=by, command_id=command_id
        )


class RestartForm(StepForm):
    verb, button, tone = "restart", "Begin this step again", ""

    reason = reason_field("What went wrong, and what is different now. What was seen so far stops counting.")

    def command(self) -> core.Command:
        return core.Restart(**self.seen, reason=self.cleaned_data["reason"])


class AskDeviationForm(StepForm):
    """To skip the step, to override one of its gates, or to set a doubt aside: `about` says which."""

    verb, button, tone = "ask-deviation", "Ask a second person", ""
    fixed = ("doubt",)

    doubt = Hidden(pattern=r"[0-9]{0,9}")
    about = forms.CharField(label="What you ask for", required=False, max_length=100, widget=forms.Select)
    reason = reason_field("Why it is safe to go on without it. A second person reads this and signs, or not.")

    def offer(self, choices: list[tuple[str, str]]) -> None:
        """Show these as what can be asked for."""
        self.fields["about"].widget = forms.Select(choices=choices)

    def command(self) -> core.Command:
        data = self.cleaned_data
        if data["doubt"]:
            return core.AskDeviation(
                **self.seen, what="doubt", doubt=int(data["doubt"]), reason=data["reason"]
            )
        what, _, gate = data["about"].partition(":")
        return core.AskDeviation(**self.seen, what=what, gate=gate, reason=data["reason"])


class CorrectFactForm(ActForm):
    """An answer of the start dialog is wrong, or no longer holds."""

    verb, button, tone = "correct", "Ask a second person", ""

    name = forms.CharField(label="Which answer", max_length=64, widget=forms.Select)
    value = forms.CharField(label="It becomes", max_length=200)
    reason = reason_field("Why it is another one now. A second person reads this and signs, or not.")

    def offer(self, choices: list[tuple[str, str]]) -> None:
        """Show these answers as what can be corrected."""
        self.fields["name"].widget = forms.Select(choices=choices)

    def command(self) -> core.Command:
        data = self.cleaned_data
        return core.CorrectFact(name=data["name"], value=data["value"], reason=data["reason"])


class HoldForm(ActForm):
    verb, button = "hold", "Put the run on hold"

    reason = reason_field("What you saw. The run stands still until somebody resumes it.", least=3)

    def command(self) -> core.Command:
        return core.Hold(reason=self.cleaned_data["reason"])


class ResumeForm(ActForm):
    verb, button = "resume", "Resume the run"

    reason = reason_field("What was found, and why the run may go on.", least=3)

    def command(self) -> core.Command:
        return core.Resume(reason=self.cleaned_data["reason"])


class NoteForm(ActForm):
    verb, button, tone = "note", "Add the note", ""

    text = text_field("Note", "It stays in the record of the run.", least=1)

    def command(self) -> core.Command:
        return core.AddNote(text=self.cleaned_data["text"])


class AbortForm(ActForm):
    verb, button, tone = "abort", "Abort the run", "danger"

    reason = reason_field("Why the run ends here. Nobody can take it up again.")

    def command(self) -> core.Command:
        return core.Abort(reason=self.cleaned_data["reason"])


class NumberForm(ActForm):
    """A decision on a deviation."""

    fixed = ("number",)
    number = Whole()


class SignDeviationForm(NumberForm):
    verb, button = "sign-deviation", "Sign the deviation"

    comment = text_field("Comment", rows=2)

    def command(self) -> core.Command:
        return core.SignDeviation(number=self.cleaned_data["number"], comment=self.cleaned_data["comment"])


class ReviewOverrideForm(NumberForm):
    verb, button = "review-override", "Close the review"

    text = text_field(
        "What the review found", "It stays in the record beside the override.", least=core.REASON
    )

    def command(self) -> core.Command:
        return core.ReviewOverride(number=self.cleaned_data["number"], text=self.cleaned_data["text"])


class RejectDeviationForm(NumberForm):
    verb, button, tone = "reject-deviation", "Reject it", "danger"

    reason = reason_field("What speaks against it.", least=3)

    def command(self) -> core.Command:
        return core.RejectDeviation(number=self.cleaned_data["number"], reason=self.cleaned_data["reason"])


class BurdenForm(ActForm):
    """An act on an open exposure or duty."""

    fixed = ("burden",)
    burden = Hidden(required=True)


class TakeOverForm(BurdenForm):
    verb, button, tone = "take-over", "Take it over by name", ""

    reason = reason_field(
        "How and until when you will see to it. It stands on the environment under your name."
    )

    def command(self) -> core.Command:
        return core.TakeOver(burden=self.cleaned_data["burden"], reason=self.cleaned_data["reason"])


class CloseBurdenForm(BurdenForm):
    verb, button, tone = "close-burden", "Report it done", ""

    text = text_field("What was done", "How it can be seen that it is over.", least=3)

    def command(self) -> core.Command:
        return core.CloseBurden(burden=self.cleaned_data["burden"], text=self.cleaned_data["text"])


FORMS: dict[str, type[ActForm]] = {
    form.verb: form
    for form in (
        BeginForm,
        CompleteForm,
        ConfirmForm,
        AttachForm,
        SignForm,
        RejectForm,
        AskAgainForm,
        AskOverrideForm,
        TakeStepForm,
        HandOverForm,
        RestartForm,
        HoldForm,
        ResumeForm,
        NoteForm,
        AskDeviationForm,
        CorrectFactForm,
        SignDeviationForm,
        RejectDeviationForm,
        ReviewOverrideForm,
        TakeOverForm,
        CloseBurdenForm,
        AbortForm,
    )
}


def sent_form(form_class: type[ActForm], request: HttpRequest) -> ActForm:
    """The form as it came. A field that came twice is refused: which one was meant is not for us to guess."""
    data: QueryDict = request.POST
    lists: list[tuple[str, list[Any]]] = [*data.lists(), *request.FILES.lists()]
    if any(len(values) > 1 for _name, values in lists):
        raise BadInput(TWICE)
    return form_class(data, request.FILES, key=form_class.key_for(data))


class RunForms:
    """The forms of one page, made when the template asks for them. The one that was refused keeps what was typed."""

    def __init__(self, refused: ActForm | None = None) -> None:
        self.refused = refused

    def get(self, verb: str, **values: Any) -> ActForm:
        """The form of `verb` with these hidden values, under a command id of its own."""
        form_class = ClientsForm if values.pop("clients", False) else FORMS[verb]
        key = form_class.key_for(values)
        if self.refused is not None and self.refused.key == key:
            return self._again(self.refused, form_class, values)
        return form_class(initial={**values, "command_id": uuid4()}, key=key)

    def _again(self, refused: ActForm, form_class: type[ActForm], values: dict[str, Any]) -> ActForm:
        """The refused form with its texts and mistakes, over what the page shows now."""
        data = {**{name: refused.data.get(name, "") for name in form_class.base_fields}, **values}
        again = form_class(data, key=refused.key)
        for name, mistakes in refused.errors.items():  # the core's among them
            if name not in again.errors and name in again.fields:
                again.add_error(name, list(mistakes))
        return again
