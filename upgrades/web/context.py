"""What the frame of every page needs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.http import HttpRequest

from upgrades.queries.approvals import count_waiting
from upgrades.queries.audit import may_audit

_SECTIONS = {
    "home": "environments",
    "environments": "environments",
    "environment": "environments",
    "start-run": "environments",
    "plan": "environments",
    "simulated": "environments",
    "new-environment": "environments",
    "members": "environments",
    "notices": "environments",
    "planned-times": "environments",
    "edit-environment": "environments",
    "new-record": "environments",
    "edit-record": "environments",
    "edit-agent": "environments",
    "environment-changes": "environments",
    "import-environment": "environments",
    "import-draft": "environments",
    "approvals": "approvals",
    "approval": "approvals",
    "policies": "environments",
    "procedures": "procedures",
    "procedure": "procedures",
    "runs": "runs",
    "show-run": "runs",
    "run-act": "runs",
    "status": "environments",
    "audit": "audit",
    "audit-run": "audit",
    "audit-duties": "audit",
    "audit-access": "audit",
    "audit-reads": "audit",
    "audit-record": "audit",
    "audit-check": "audit",
}


class Navigation:
    """The section of the page, and how many signatures wait for this person; asked for only where it is shown."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @property
    def section(self) -> str:
        match = self._request.resolver_match
        return _SECTIONS.get(match.url_name or "", "") if match else ""

    @cached_property
    def approvals_waiting(self) -> int:
        user = self._request.user
        return count_waiting(user) if user.is_authenticated else 0

    @cached_property
    def audits(self) -> bool:
        return self._request.user.is_authenticated and may_audit(self._request.user)


def nav(request: HttpRequest) -> dict[str, Any]:
    """Context processor: `nav` for templates/base.html."""
    return {"nav": Navigation(request)}
