"""What people do in a run, one address per verb; and the verbs that no token has, which say so and are recorded."""

# Annotations are values here: the functions are made in a loop, each with the shape of its verb.

from typing import Any, ClassVar, Literal

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from pydantic import BaseModel, ConfigDict, Field

from upgrades.api.door import MULTIPART, command_id, person, seen, tagged
from upgrades.api.operations import form_body, operation
from upgrades.api.problems import bad_request
from upgrades.api.shapes import Done, In, Name, Number
from upgrades.domain import run as core
from upgrades.domain.api_scopes import OPERATE
from upgrades.models import Run
from upgrades.services import evidence, holding, runs

TAG, NEVER_TAG = "Acts", "Never by token"
WHY = "Runs look good on every page; the team agreed to go on."
Reason = Field(min_length=3, max_length=2000, examples=[WHY])
Why = Field(min_length=core.REASON, max_length=2000, examples=[WHY])


class Act(In):
    """An act on the run as a whole."""

    verb: ClassVar[str]
    summary: ClassVar[str]

    def command(self) -> core.Command:
        """The command that the act stands for; each act has its own."""
        raise NotImplementedError


class OnStep(Act):
    """An act on the current step, as the run's state names it: a late one is refused instead of hitting another step."""

    step: Name
    visit: Number


class Begin(OnStep):
    verb = "begin"
    summary = "Begin the step. The positions in the logs are marked now; only what comes behind them counts"

    def command(self) -> core.Command:
        return core.Begin(step=self.step, visit=self.visit)


class Complete(OnStep):
    verb = "complete"
    summary = "Complete the step, once its gates are open"

    def command(self) -> core.Command:
        return core.Complete(step=self.step, visit=self.visit)


class Confirm(OnStep):
    verb = "confirm"
    summary = "State what was seen at a gate. Only pass opens it; the others need a text"

    gate: Name
    answer: Literal["pass", "fail", "not-tested"]
    text: str = Field("", max_length=2000)

    def command(self) -> core.Command:
        return core.Confirm(
            step=self.step, visit=self.visit, gate=self.gate, answer=self.answer, text=self.text
        )


class Restart(OnStep):
    verb = "restart"
    summary = "Begin the step again. What was seen so far stops counting"

    reason: str = Why

    def command(self) -> core.Command:
        return core.Restart(step=self.step, visit=self.visit, reason=self.reason)


class TakeStep(OnStep):
    verb = "take-step"
    summary = "Take the step; with a reason where somebody else holds it"

    reason: str = Field("", max_length=2000)

    def command(self) -> core.Command:
        return core.TakeStep(step=self.step, visit=self.visit, reason=self.reason)


class AskAgain(OnStep):
    verb = "ask-again"
    summary = "Ask for an approval anew that was rejected or ran out of time"

    gate: Name
    reason: str = Why

    def command(self) -> core.Command:
        return core.AskAgain(step=self.step, visit=self.visit, gate=self.gate, reason=self.reason)


class Skip(OnStep):
    verb = "ask-skip"
    summary = "Ask a second person for leave to skip the step"

    reason: str = Why

    def command(self) -> core.Command:
        return core.AskDeviation(step=self.step, visit=self.visit, what="skip", reason=self.reason)


class Waive(OnStep):
    verb = "ask-waiver"
    summary = "Ask a second person for leave to go on without a gate"

    gate: Name
    reason: str = Why

    def command(self) -> core.Command:
        return core.AskDeviation(
            step=self.step, visit=self.visit, what="override", gate=self.gate, reason=self.reason
        )


class SetDoubtAside(OnStep):
    verb = "ask-doubt"
    summary = (
        "Ask a second person for leave to set a gap or an unreadable line aside: the event that tells of it"
    )

    doubt: Number
    reason: str = Why

    def command(self) -> core.Command:
        return core.AskDeviation(
            step=self.step, visit=self.visit, what="doubt", doubt=self.doubt, reason=self.reason
        )


class Correct(Act):
    verb = "ask-correction"
    summary = "Ask a second person for leave to correct an answer of the start dialog"

    name: Name
    value: str = Field(max_length=200)
    reason: str = Why

    def command(self) -> core.Command:
        return core.CorrectFact(name=self.name, value=self.value, reason=self.reason)


class Hold(Act):
    verb = "hold"
    summary = "Put the run on hold"

    reason: str = Reason

    def command(self) -> core.Command:
        return core.Hold(reason=self.reason)


class Resume(Act):
    verb = "resume"
    summary = "Resume a run that is on hold"

    reason: str = Reason

    def command(self) -> core.Command:
        return core.Resume(reason=self.reason)


class AddNote(Act):
    verb = "note"
    summary = "Add a note to the record"

    text: str = Field(min_length=1, max_length=2000, examples=["The phones are quiet."])

    def command(self) -> core.Command:
        return core.AddNote(text=self.text)


class TakeOver(Act):
    verb = "take-over"
    summary = (
        "Take an open exposure or duty over by name: it stands on the environment under the owner's name"
    )

    burden: Name
    reason: str = Why

    def command(self) -> core.Command:
        return core.TakeOver(burden=self.burden, reason=self.reason)


class CloseBurden(Act):
    verb = "close-burden"
    summary = "Report that an exposure or duty that was taken over is done"

    burden: Name
    text: str = Reason

    def command(self) -> core.Command:
        return core.CloseBurden(burden=self.burden, text=self.text)


class Abort(Act):
    verb = "abort"
    summary = "Abort the run. Nobody can take it up again"

    reason: str = Why

    def command(self) -> core.Command:
        return core.Abort(reason=self.reason)


ACTS: tuple[type[Act], ...] = (
    Begin,
    Complete,
    Confirm,
    Restart,
    TakeStep,
    AskAgain,
    Skip,
    Waive,
    SetDoubtAside,
    Correct,
    Hold,
    Resume,
    AddNote,
    TakeOver,
    CloseBurden,
    Abort,
)


def answered(response: HttpResponse, done: runs.Done) -> Done:
    """What was done, with the version of the run as it is now."""
    head = Run.objects.values_list("head", flat=True).get(pk=done.run)
    tagged(response, head)
    return Done(run=done.run, seq=done.seq, head=head)


def _offer(shape: type[Act]) -> None:
    def act(request: HttpRequest, response: HttpResponse, run_id: int, sent: shape) -> Done:  # type: ignore[valid-type]
        done = runs.act(
            run_id=run_id,
            command=sent.command(),  # type: ignore[attr-defined]
            by=person(request),
            command_id=command_id(request),
            head=seen(request),
        )
        return answered(response, done)

    act.__name__ = f"{shape.verb.replace('-', '_')}_in_run"
    act.__doc__ = shape.summary
    operation("POST", f"runs/{{int:run_id}}/{shape.verb}", Done, tag=TAG, scope=OPERATE, needs_match=True)(
        act
    )


for _shape in ACTS:
    _offer(_shape)


# Two that are more than a command.


class HandOver(In):
    step: Name
    visit: Number
    to: str = Field(pattern=r"^user:[0-9]{1,18}$", examples=["user:7"])
    reason: str = Field("", max_length=2000)


@operation("POST", "runs/{int:run_id}/hand-over", Done, tag=TAG, scope=OPERATE, needs_match=True)
def hand_over_in_run(request: HttpRequest, response: HttpResponse, run_id: int, sent: HandOver) -> Done:
    """Hand the step over to another operator."""
    done = holding.hand_over(
        run_id=run_id,
        step=sent.step,
        visit=sent.visit,
        to=sent.to,
        reason=sent.reason,
        by=person(request),
        command_id=command_id(request),
        head=seen(request),
    )
    return answered(response, done)


class Attach(BaseModel):
    """The form: these fields, and a file beside them."""

    model_config = ConfigDict(extra="forbid")

    step: Name
    visit: Number
    gate: str = Field("", pattern=r"^[A-Za-z0-9:._-]{0,100}$")
    text: str = Field("", max_length=2000)


@operation(
    "POST",
    "runs/{int:run_id}/attach",
    Done,
    tag=TAG,
    scope=OPERATE,
    needs_match=True,
    takes=[MULTIPART],
    says=form_body(Attach),
)
def attach_in_run(request: HttpRequest, response: HttpResponse, run_id: int) -> Done:
    """Attach evidence to the step or to one of its gates: a file, a text, or both."""
    lists: list[tuple[str, list[Any]]] = [*request.POST.lists(), *request.FILES.lists()]
    if any(len(values) > 1 for _, values in lists):
        raise bad_request("A field came more than once, so it is not clear what is meant. Nothing was done.")
    if set(request.FILES) - {"file"}:
        raise bad_request("A file comes in the field “file”. Nothing was done.")
    sent = Attach.model_validate(request.POST.dict())
    common: dict[str, Any] = {"run_id": run_id, "by": person(request), "command_id": command_id(request)}
    upload: UploadedFile[bytes] | None = request.FILES.get("file")
    if upload is None:
        attach = core.Attach(step=sent.step, visit=sent.visit, gate=sent.gate, text=sent.text)
        return answered(response, runs.act(command=attach, head=seen(request), **common))
    done = evidence.attach_file(
        step=sent.step,
        visit=sent.visit,
        gate=sent.gate,
        upload=upload,
        text=sent.text,
        head=seen(request),
        **common,
    )
    return answered(response, done)


# What only a person does. The answer is always 403, and the attempt is on the record of the run.

_ZERO = "0" * 64
NEVER: dict[str, core.Command] = {
    "sign": core.Sign(step="", visit=0, gate="", digest=_ZERO),
    "reject": core.Reject(step="", visit=0, gate="", digest=_ZERO, reason=""),
    "sign-deviation": core.SignDeviation(number=0),
    "reject-deviation": core.RejectDeviation(number=0, reason=""),
    "ask-override": core.AskOverride(step="", visit=0, gate="", reason=""),
    "review-override": core.ReviewOverride(number=0, text=""),
}


def _refuse(verb: str, command: core.Command) -> None:
    def act(request: HttpRequest, run_id: int) -> None:
        runs.act(run_id=run_id, command=command, by=person(request), command_id=command_id(request))

    act.__name__ = f"{verb.replace('-', '_')}_in_run"
    act.__doc__ = f"Always refused: a token can never {verb.replace('-', ' ')}. The attempt is recorded"
    operation("POST", f"runs/{{int:run_id}}/{verb}", None, tag=NEVER_TAG, scope="", never=True)(act)


for _verb, _command in NEVER.items():
    _refuse(_verb, _command)
