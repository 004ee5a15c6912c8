"""The list of runs."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from upgrades.models import Environment
from upgrades.queries.runs_list import KINDS, STATUSES, Filters, choosable_environments, runs_page
from upgrades.web.environments import person


class FilterForm(forms.Form):
    """What the list is narrowed to. An impossible choice is said and narrows nothing."""

    status = forms.ChoiceField(choices=[("", "Any state"), *STATUSES], required=False, label="State")
    environment = forms.ModelChoiceField(
        Environment.objects.none(), required=False, empty_label="All environments"
    )
    kind = forms.ChoiceField(choices=[("", "Live and rehearsal"), *KINDS], required=False, label="Kind")

    def __init__(self, environments: Any, data: Any) -> None:
        super().__init__(data)
        field = self.fields["environment"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = environments

    def filters(self) -> Filters:
        self.full_clean()
        chosen = self.cleaned_data.get("environment")
        return Filters(
            status=self.cleaned_data.get("status", ""),
            environment=chosen.pk if chosen else None,
            kind=self.cleaned_data.get("kind", ""),
        )


@require_safe
def list_runs(request: HttpRequest) -> HttpResponse:
    user = person(request)
    form = FilterForm(choosable_environments(user), request.GET)
    filters = form.filters()
    shown = runs_page(user, filters, request.GET.get("page", "1"))
    context = {"form": form, "shown": shown, "page": shown.page, "is_filtered": filters != Filters()}
    return render(request, "upgrades/runs_list/list.html", context)
