"""The scripted person: plays what an operator does for a step of a procedure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Action = dict[str, Any]

# Steps in which a person only looks, confirms or signs: nothing happens in the world.
WATCHING = frozenset({"clients-moved"})


def actions_for(step: str, roles: Mapping[str, str], parameters: Mapping[str, Any]) -> list[Action]:
    """The actions of a step of a procedure, in order, as POST /act takes them; none for a step it does not
    know.

    `roles` names the servers: {"new": "confserv_b", "old": "confserv"}; in a step that is repeated, "each" is
    its server, "beside" the one on the same host, "peer" the other of the pair. `parameters` are the run's:
    "target" (the version; missing, it is the world's own), "database-upgraded" (bool),
    "disconnect-switchover-timeout" (seconds, as text).
    """
    make = STEPS.get(step)
    return [] if make is None else make(roles, parameters)


def _on(action: str, role: str, **more: Any) -> Callable[[Mapping[str, str]], Action]:
    return lambda roles: {"action": action, "server": roles[role], **more}


def _install(role: str, roles: Mapping[str, str], parameters: Mapping[str, Any]) -> Action:
    action = {"action": "install", "server": roles[role]}
    return {**action, "version": parameters["target"]} if parameters.get("target") else action


TIMEOUT = "disconnect-switchover-timeout"


def _set_option(roles: Mapping[str, str], parameters: Mapping[str, Any]) -> list[Action]:
    return [{**_delete_option(roles), "value": parameters[TIMEOUT]}]


def _delete_option(roles: Mapping[str, str]) -> Action:
    return {"action": "set-option", "server": roles["each"], "section": "general", "option": TIMEOUT}


def _install_remaining(roles: Mapping[str, str], parameters: Mapping[str, Any]) -> list[Action]:
    actions = [_install("old", roles, parameters)]
    if parameters.get("database-upgraded"):  # CSH-8b
        actions.append(_on("point-to-database", "old", which="upgraded", folder="prepared")(roles))
    return [*actions, _on("replace-folder", "old")(roles)]


def _install_copy(roles: Mapping[str, str], parameters: Mapping[str, Any]) -> list[Action]:
    actions = [_install("each", roles, parameters)]
    if parameters.get("database-upgraded"):  # INT-5
        actions.append(_on("point-to-database", "each", which="upgraded", folder="prepared")(roles))
    return actions


def _fixed(
    *makers: Callable[[Mapping[str, str]], Action],
) -> Callable[[Mapping[str, str], Mapping[str, Any]], list[Action]]:
    return lambda roles, _parameters: [make(roles) for make in makers]


STEPS: dict[str, Callable[[Mapping[str, str], Mapping[str, Any]], list[Action]]] = {
    "backup-database": lambda _roles, _parameters: [{"action": "backup-database"}],
    "install-new": lambda roles, parameters: [_install("new", roles, parameters)],
    "read-only": lambda _roles, _parameters: [{"action": "set-read-only", "on": True}],
    "point-to-new-database": _fixed(_on("point-to-database", "new", which="upgraded", folder="prepared")),
    "replace-folder": _fixed(_on("stop", "new"), _on("replace-folder", "new")),
    "launch-new": _fixed(_on("start", "new")),
    # The step after it is launch-new again: its watch must begin before the server starts.
    "force-upgrade-mode": _fixed(_on("stop", "new"), _on("set-upgrade-mode", "new", on=True)),
    "close-compatible": lambda _roles, _parameters: [{"action": "set-read-only", "on": False}],
    "stop-old": _fixed(_on("stop", "old")),
    "install-remaining": _install_remaining,
    "start-remaining": _fixed(_on("start", "old")),
    "stop-upgrade-mode": _fixed(_on("stop", "new")),
    # Left in place, the option would force upgrade mode again at this start.
    "start-former": lambda roles, _parameters: [
        _on("set-upgrade-mode", "new", on=False)(roles),
        _on("start", "new")(roles),
        {"action": "set-read-only", "on": False},
    ],
    # A single Configuration Server
    "install-instance": lambda roles, parameters: [_install("server", roles, parameters)],
    "migrate-database": _fixed(_on("point-to-database", "server", which="upgraded", folder="prepared")),
    "stop-server": _fixed(_on("stop", "server")),
    "replace-server-folder": _fixed(_on("replace-folder", "server")),
    "launch-server": _fixed(_on("start", "server")),
    # Rolling back
    "stop-first": _fixed(_on("stop", "first")),
    "stop-second": _fixed(_on("stop", "second")),
    "stop-both": _fixed(_on("stop", "second")),
    "reset-first": _fixed(_on("restore-folder", "first")),
    "reset-second": _fixed(_on("restore-folder", "second")),
    "reset-server": _fixed(_on("restore-folder", "server")),
    "start-first": _fixed(_on("start", "first")),
    "start-second": _fixed(_on("start", "second")),
    "start-server": _fixed(_on("start", "server")),
    "close-rollback": lambda _roles, _parameters: [{"action": "set-read-only", "on": False}],
    # Dormant copies
    "install-copy": _install_copy,
    "replace-copy": _fixed(_on("replace-folder", "each")),
    # Local Control Agent, host by host
    "set-option": _set_option,
    "stop-scs": _fixed(_on("stop", "beside")),
    "stop-lca": _fixed(_on("stop", "each")),
    "install-lca": lambda roles, parameters: [
        _install("each", roles, parameters),
        _on("replace-folder", "each")(roles),
        _on("start", "each")(roles),
    ],
    "start-scs": _fixed(_on("start", "beside")),
    "remove-option": _fixed(_delete_option),
    # Solution Control Server and Message Server
    "shut-down": _fixed(_on("stop", "each")),
    "install-version": lambda roles, parameters: [
        _install("each", roles, parameters),
        _on("replace-folder", "each")(roles),
    ],
    "start-up": _fixed(_on("start", "each")),
}


class Person:
    """Plays steps through `act`, which takes one action and answers with a sentence (World.act, or POST
    /act)."""

    def __init__(
        self,
        act: Callable[[Action], str],
        roles: Mapping[str, str],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._act = act
        self._roles = roles
        self._parameters = parameters or {}

    def play(self, step: str) -> list[str]:
        """Do what the step says; returns a sentence for each action. A refusal ends the step and comes
        out."""
        return [self._act(action) for action in actions_for(step, self._roles, self._parameters)]
