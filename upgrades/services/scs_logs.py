"""The logs of Solution Control Servers, read on also where no run needs them: the standing rules look for its reports.

What an SCS wrote before it was first seen here is old news. A short log is read from its beginning all the same, since
what it reports last may stand still; of a long one only what comes from now on.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from upgrades.adapters.agent_client import ApplicationLogs, Logs
from upgrades.domain.application_type import type_number
from upgrades.domain.environment import SCS
from upgrades.domain.log_events import ParserState
from upgrades.models import Agent, Application, LogFile

FROM_THE_BEGINNING = 1024 * 1024  # bytes of all files of a log together


def unbound(host_id: int, bound: Iterable[Application]) -> list[Application]:
    """The SCS of a host that are not among those that are followed anyway."""
    known = [application.pk for application in bound]
    return list(Application.objects.filter(host=host_id, type=SCS).exclude(pk__in=known))


@transaction.atomic
def begin(agent_id: int, logs: Logs) -> None:
    """See to it that the long logs of SCS which nobody has read yet are read from their present ends."""
    agent = Agent.objects.get(pk=agent_id)
    for application in unbound(agent.host_id, ()):
        listed = logs.applications.get(application.name)
        if listed is None or sum(file.size for file in listed.files) <= FROM_THE_BEGINNING:
            continue
        if not LogFile.objects.filter(application=application).exists():
            _skip(application, listed)


def _skip(application: Application, listed: ApplicationLogs) -> None:
    LogFile.objects.bulk_create(
        (
            LogFile(
                application=application,
                identity=file.file,
                name=file.name[:300],
                cursor=file.whole,
                size=file.whole,
                parser_state=ParserState.initial(
                    application_type=type_number(application.type), file_name=file.name, offset=file.whole
                ).to_json(),
            )
            for file in listed.files
        ),
        ignore_conflicts=True,  # a run has begun meanwhile and reads it from its beginning
    )
