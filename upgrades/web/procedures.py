"""Procedures to read."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from upgrades.queries.procedure_pages import procedure_list, procedure_page


@require_safe
def list_procedures(request: HttpRequest) -> HttpResponse:
    return render(request, "upgrades/procedures/list.html", {"procedures": procedure_list()})


@require_safe
def show_procedure(request: HttpRequest, procedure: str, version: int) -> HttpResponse:
    page = procedure_page(procedure, version)
    if page is None:
        raise Http404("No procedure is published under this name and number.")
    return render(request, "upgrades/procedures/show.html", {"page": page})
