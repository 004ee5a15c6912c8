"""Many people at once: each acts on a run of his own through the web server, by the form that works without script."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from django.conf import settings
from django.contrib.auth.models import User

from upgrades.bench import place
from upgrades.bench.figures import Figure, alternately, percentile, ratio, spread
from upgrades.bench.parts import filled
from upgrades.bench.readers import signed_in
from upgrades.bench.scene import NOTE, Pair, Team, unwatched_pair
from upgrades.models import Membership

NUMBER = 9000  # of the agents of the one pair, which never are asked
PEOPLE, ACTS, EVENTS = 50, 10, 100
THINKS = 4.0  # seconds from an act to the next one of the same person, give or take half
P99_GOAL = 0.1


@dataclass(slots=True)
class Person:
    """Somebody with a session and a run of his own."""

    http: httpx.AsyncClient
    run: int

    async def look(self) -> None:
        """Open the page, as everybody does before an act. It gives the token of the forms, too."""
        (await self.http.get(f"/runs/{self.run}/")).raise_for_status()

    async def act(self) -> float:
        """Seconds from sending a form to the answer that says where to look."""
        data = {
            "command_id": str(uuid.uuid4()),
            "text": NOTE,
            "csrfmiddlewaretoken": self.http.cookies[settings.CSRF_COOKIE_NAME],
        }
        began = time.perf_counter()
        answer = await self.http.post(f"/runs/{self.run}/note/", data=data)
        took = time.perf_counter() - began
        if answer.status_code != 303:
            raise place.CannotMeasure(f"An act was answered {answer.status_code} instead of 303.")
        return took


def measure(team: Team, say: Callable[[str], None]) -> list[Figure]:
    """The figure of acts through HTTP, and of the same act through its service with nobody else about."""
    say(f"{PEOPLE} people act …")
    pair = unwatched_pair(NUMBER, team, name="People")
    cookies = [_cookie(pair, number) for number in range(PEOPLE)]
    theirs = [filled(pair, EVENTS) for _ in cookies]
    [alone] = alternately(PEOPLE, lambda: team.note(pair))
    with tempfile.TemporaryDirectory(prefix="bench-") as name, place.web(Path(name)) as url:
        took, seconds = asyncio.run(_all_at_once(url, list(zip(cookies, theirs, strict=True))))
    return [
        Figure(
            f"a command through HTTP, {PEOPLE} people at once ({len(took) / seconds:.0f} acts a second)",
            spread(took),
            f"{ratio(took, alone):.1f} × the same through its service, alone",
            "p99 ≤ 100 ms",
            percentile(took, 99) <= P99_GOAL,
        )
    ]


def _cookie(pair: Pair, number: int) -> str:
    user = User.objects.create(username=f"bench-{number}")
    Membership.objects.create(environment=pair.environment, user=user, role="operator")
    return signed_in(user)


async def _all_at_once(url: str, people: list[tuple[str, int]]) -> tuple[list[float], float]:
    """Seconds that each act took, and the seconds of it all. Everybody has the page open before the first one acts."""
    name = settings.SESSION_COOKIE_NAME
    persons = [
        Person(httpx.AsyncClient(base_url=url, cookies={name: cookie}, timeout=60), run)
        for cookie, run in people
    ]
    async with asyncio.TaskGroup() as ready:
        for person in persons:
            ready.create_task(person.look())
    began = time.perf_counter()
    async with asyncio.TaskGroup() as acting:
        tasks = [acting.create_task(_acts(person)) for person in persons]
    seconds = time.perf_counter() - began
    for person in persons:
        await person.http.aclose()
    return [took for task in tasks for took in task.result()], seconds


async def _acts(person: Person) -> list[float]:
    took = []
    for _ in range(ACTS):
        await asyncio.sleep(random.uniform(THINKS / 2, THINKS * 3 / 2))
        took.append(await person.act())
    return took
