"""Pages for files: export, the dry run of an import, and the button that applies what was shown."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_http_methods, require_safe

from upgrades.domain.environment_text import MAX_BYTES
from upgrades.domain.refusal import NotAllowed, Refused
from upgrades.models import Environment, ImportDraft
from upgrades.queries.environment_export import exported
from upgrades.services.environment_import import File, Look, apply_draft, file_of, keep_draft, look
from upgrades.web.answers import status_of
from upgrades.web.environment_editing import ActForm, administered
from upgrades.web.environments import environment_or_404, person

TYPES = {"csv": "text/csv; charset=utf-8", "yaml": "application/yaml; charset=utf-8"}
SEPARATORS = {"": ",", "comma": ",", "semicolon": ";", "tab": "\t"}


@require_safe
def export(request: HttpRequest, environment_id: int, form: str) -> HttpResponse:
    """The environment as a file, for everybody who may see it."""
    environment = environment_or_404(request, environment_id)
    separator = SEPARATORS.get(request.GET.get("separator", ""))
    if form not in TYPES or separator is None:
        raise Http404("There is no such file. An environment is exported as csv or as yaml.")
    text = exported(environment, form, separator)
    response = HttpResponse(text.encode(), content_type=TYPES[form])
    name = re.sub(r"[^A-Za-z0-9]+", "-", environment.name).strip("-").lower() or "environment"
    response.headers["Content-Disposition"] = (
        content_disposition_header(True, f"{name}.{form}") or "attachment"
    )
    return response


class FileForm(forms.Form):
    file = forms.FileField(
        label="File",
        help_text="CSV (UTF-8, separated by commas, semicolons or tabs) or YAML, at most 1 MiB and 10,000 rows. "
        "The content decides which of the two it is.",
        error_messages={"required": "Choose a file.", "empty": "The file is empty."},
    )
    remove_unlisted = forms.BooleanField(
        required=False,
        label="Remove what is not in the file",
        help_text="Without it, whatever the file does not list stays as it is.",
    )


@require_http_methods(["GET", "HEAD", "POST"])
def import_file(request: HttpRequest, environment_id: int) -> HttpResponse:
    """Choose a file. One without mistakes leads to the page of its difference, else the mistakes are shown here."""
    environment = administered(request, environment_id)
    form = FileForm(request.POST, request.FILES) if request.method == "POST" else FileForm()
    if not form.is_bound:
        return _choose(request, environment, form)
    if not form.is_valid():
        return _choose(request, environment, form, status=400)
    upload = form.cleaned_data["file"]
    # One byte more than is allowed is enough to know.
    file = File(str(upload.name), upload.read(MAX_BYTES + 1), form.cleaned_data["remove_unlisted"])
    try:
        found, draft = keep_draft(environment_id=environment.pk, file=file, by=person(request))
    except NotAllowed as refusal:
        raise PermissionDenied(refusal.message) from refusal
    except Refused as refusal:
        form.add_error(None, refusal.message)
        return _choose(request, environment, form, status=status_of(refusal))
    if draft is None:
        return _choose(request, environment, form, status=400, found=found, name=file.name)
    return HttpResponseRedirect(resolve_url("import-draft", environment.pk, draft), status=303)


def _choose(
    request: HttpRequest, environment: Environment, form: FileForm, status: int = 200, **more: Any
) -> HttpResponse:
    context = {"environment": environment, "form": form, **more}
    return render(request, "upgrades/environments/import.html", context, status=status)


class ApplyForm(ActForm):
    shown = forms.CharField(max_length=64, widget=forms.HiddenInput)


@require_http_methods(["GET", "HEAD", "POST"])
def import_draft(request: HttpRequest, environment_id: int, draft_id: UUID) -> HttpResponse:
    """What the file would change, as things stand now; and, on POST, exactly that."""
    environment = administered(request, environment_id)
    if request.method == "POST":
        return _apply(request, environment, draft_id)
    return _difference(request, environment, draft_id)


def _difference(
    request: HttpRequest, environment: Environment, draft_id: UUID, *, refused: str = "", status: int = 200
) -> HttpResponse:
    draft = ImportDraft.objects.filter(
        pk=draft_id, environment=environment, user_id=person(request).pk
    ).first()
    if draft is None:
        raise Http404(
            "This file was applied already, or a newer one has taken its place. Choose the file again."
        )
    found = look(environment, file_of(draft))
    context = {
        "environment": environment,
        "draft": draft,
        "found": found,
        "counts": _counts(found),
        "form": ApplyForm(initial={"command_id": uuid4(), "shown": found.digest}),
        "refused": refused,
    }
    return render(request, "upgrades/environments/import_draft.html", context, status=status)


def _counts(found: Look) -> dict[str, int]:
    acts = [change.act for change in found.changes]
    return {act: acts.count(act) for act in ("added", "changed", "removed")}


def _apply(request: HttpRequest, environment: Environment, draft_id: UUID) -> HttpResponse:
    form = ApplyForm(request.POST)
    if not form.is_valid():
        return _difference(
            request,
            environment,
            draft_id,
            refused="This page was not sent as it was shown. Look again.",
            status=400,
        )
    try:
        apply_draft(
            environment_id=environment.pk,
            draft_id=draft_id,
            shown=form.cleaned_data["shown"],
            by=person(request),
            command_id=form.cleaned_data["command_id"],
        )
    except NotAllowed as refusal:
        raise PermissionDenied(refusal.message) from refusal
    except Refused as refusal:
        return _difference(request, environment, draft_id, refused=refusal.message, status=status_of(refusal))
    messages.success(request, "The file is applied. The change is on record.")
    return HttpResponseRedirect(resolve_url("edit-environment", environment.pk), status=303)
