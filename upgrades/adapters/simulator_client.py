"""The simulator's HTTP control: simulated worlds for the demo, for rehearsals and for tests.

It listens on a loopback address only, and so this client speaks to one only. Every function raises
`SimulatorUnavailable` when it does not answer and `SimulatorRefused` with its own sentence when it says no.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from django.conf import settings

from upgrades.domain.refusal import Refused, Unavailable

# Starting a world starts an agent per host; everything else is answered at once or is not worth waiting for.
_LOOK = httpx.Timeout(2.0)
_CREATE = httpx.Timeout(30.0, connect=2.0)


class SimulatorUnavailable(Unavailable):
    """No simulator is set up here, or it does not answer."""


class SimulatorRefused(Refused):
    """The simulator says no to an action; its text says why and what to do."""

    code = "simulator-refused"


class NoSuchWorld(SimulatorRefused):
    """The simulator has no world of that id (it was begun anew)."""

    code = "no-such-world"


def is_set_up() -> bool:
    """Whether this installation has a simulator, and so rehearsals."""
    return bool(settings.SIMULATOR_URL)


def create_world(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Make a world from a whole specification or {"world": "frankfurt", …}; its state, with agents and keys."""
    return _ask("POST", "/worlds", spec, timeout=_CREATE)


def worlds() -> frozenset[str]:
    """The ids of all worlds."""
    return frozenset(world["world"] for world in _ask("GET", "/worlds")["worlds"])


def state(world: str, *, lines: int = 0) -> dict[str, Any]:
    """Servers, agents, roles, pairs and notes of a world, with the last `lines` of each log."""
    return _ask("GET", f"/worlds/{quote(world, safe='')}?lines={lines}")


def act(world: str, *actions: Mapping[str, Any]) -> str:
    """Do the actions in order, as {"action": "stop", "server": "confserv"}; what happened, in sentences."""
    return str(_ask("POST", f"/worlds/{quote(world, safe='')}/act", {"actions": list(actions)})["said"])


def do_step(world: str, step: str, roles: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    """Do what a step of a procedure tells the operator to do on the servers; what happened, in sentences."""
    wish = {"step": step, "roles": dict(roles), "parameters": dict(parameters)}
    return str(_ask("POST", f"/worlds/{quote(world, safe='')}/do-step", wish)["said"])


def misbehave(world: str, what: str, *, server: str = "", host: str = "", value: Any = True) -> str:
    """Let something go wrong, or end it (`value` False); what happened, in a sentence."""
    where = {"server": server} if server else {"host": host} if host else {}
    wish = {"what": what, "value": value, **where}
    return str(_ask("POST", f"/worlds/{quote(world, safe='')}/misbehave", wish)["said"])


def delete(world: str) -> None:
    """Remove a world and end its agents. One that is not there any more is no error."""
    try:
        _ask("DELETE", f"/worlds/{quote(world, safe='')}", timeout=_CREATE)
    except NoSuchWorld:
        return


def scenarios() -> dict[str, Any]:
    """{"scenarios": {name: …}, "misbehaviours": {name: text}, "worlds": {name: specification}}; never changes."""
    return _ask("GET", "/scenarios")


def _base() -> str:
    if not settings.SIMULATOR_URL:
        raise SimulatorUnavailable("No simulator is set up here: SIMULATOR_URL is not set.")
    return _loopback(str(settings.SIMULATOR_URL))


def _loopback(url: str) -> str:
    host = urlsplit(url).hostname or ""
    if host != "localhost" and not _is_loopback(host):
        raise SimulatorUnavailable(
            "SIMULATOR_URL names another machine. The simulator is asked on a loopback address only: "
            "set it as http://127.0.0.1:8010."
        )
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _ask(
    method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout: httpx.Timeout = _LOOK
) -> dict[str, Any]:
    base = _base()
    try:
        # No proxy of the environment may come between: what is asked stays on this machine.
        with httpx.Client(base_url=base, timeout=timeout, trust_env=False) as client:
            answer = client.request(method, path, json=None if body is None else dict(body))
        content = answer.json()
    except (httpx.HTTPError, ValueError) as trouble:
        raise SimulatorUnavailable(
            f"The simulator does not answer ({type(trouble).__name__}). Check that it runs, then try again."
        ) from trouble
    if answer.is_success and isinstance(content, dict):
        return content
    raise _refusal(answer.status_code, content)


def _refusal(status: int, content: Any) -> Refused:
    said = content.get("error") if isinstance(content, dict) else None
    text = str(said or f"It answered {status} without a reason.")
    if status == httpx.codes.NOT_FOUND:
        return NoSuchWorld(f"The simulated servers are gone: {text}")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return SimulatorUnavailable(f"The simulator has trouble of its own: {text}")
    return SimulatorRefused(text)
