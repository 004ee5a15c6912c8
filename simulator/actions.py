"""What a person can do in a world. An action is a JSON object with `action` and its parameters; `ACTIONS`
lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulator import reactions
from simulator.model import DATABASES, Folder, Refused, Server
from simulator.spec import VERSION

if TYPE_CHECKING:
    from simulator.world import World


def perform(world: World, action: Any) -> str:
    """Do it and say what happened. Raises Refused for an unknown action, a wrong parameter or an action not
    possible now."""
    if not isinstance(action, dict) or not isinstance(action.get("action"), str):
        raise Refused('An action is an object such as {"action": "stop", "server": "confserv"}.')
    name = action["action"]
    if name not in ACTIONS:
        raise Refused(f"Nobody knows the action {name!r}. There are: {', '.join(ACTIONS)}.")
    do, allowed = ACTIONS[name]
    unknown = sorted(set(action) - {"action", *allowed})
    if unknown:
        raise Refused(
            f"{name} knows no parameter {', '.join(unknown)}; it takes {', '.join(allowed) or 'none'}."
        )
    parameters = dict(action)
    del parameters["action"]
    if "server" in allowed:
        server = world.server(parameters.pop("server", None))
        if server.stopping and name in WAITS_FOR_THE_END:
            server.then.append(action)
            return f"{server.name} is still ending; {name} follows as soon as it has."
        return do(world, server, **parameters)
    return do(world, **parameters)


def stop(world: World, server: Server) -> str:
    if not server.up:
        raise Refused(f"{server.name} is down already. There is nothing to stop.")
    if server.stopping:
        raise Refused(f"{server.name} is being stopped already. Wait until it has ended.")
    leaving = len(server.clients)
    reactions.stop(world, server)
    return f"{server.name} is being stopped" + (
        f"; its {leaving} clients lose their connection." if leaving else "."
    )


def start(world: World, server: Server) -> str:
    if server.up:
        raise Refused(f"{server.name} runs already ({server.mode}). Stop it first.")
    if "current" not in server.folders:
        raise Refused(f"{server.name} has no current folder. Put one in its place first.")
    reactions.start(world, server)
    return f"{server.name} {server.current.version} is started on {server.host}."


def install(world: World, server: Server, version: str | None = None) -> str:
    wanted = version or world.spec["target"]
    if not isinstance(wanted, str) or not VERSION.fullmatch(wanted):
        raise Refused(f"{wanted!r} is not a version. Give one such as 8.5.101.")
    database = server.current.database if "current" in server.folders else "old"
    section = f"{server.name}_new" if server.misbehaviours.get("wrong-section") else server.name
    server.folders["prepared"] = Folder(version=wanted, section=section, database=database)
    world.disk.remove(server, "prepared")
    world.disk.write(server, "prepared")
    return f"{server.name} {wanted} is installed in its prepared folder, and not started."


def replace_folder(world: World, server: Server) -> str:
    _must_be_down(server)
    if "prepared" not in server.folders:
        raise Refused(f"{server.name} has no prepared folder. Install the new version first.")
    if "kept" in server.folders:
        raise Refused(
            f"{server.name} has a kept folder already, and it would be overwritten. Reset the world first."
        )
    for source, target in (("current", "kept"), ("prepared", "current")):
        server.folders[target] = server.folders.pop(source)
        world.disk.move(server, source, target)
    kept = world.disk.folder(server, "kept").name
    version = server.current.version
    return f"The folder of {server.name} is kept as {kept}; version {version} stands in its place."


def restore_folder(world: World, server: Server) -> str:
    _must_be_down(server)
    if "kept" not in server.folders:
        raise Refused(f"{server.name} has no kept folder. There is nothing to go back to.")
    world.disk.remove(server, "prepared")
    for source, target in (("current", "prepared"), ("kept", "current")):
        server.folders[target] = server.folders.pop(source)
        world.disk.move(server, source, target)
    return f"The kept folder of {server.name}, version {server.current.version}, is back in its place."


def set_read_only(world: World, on: bool = True) -> str:
    reactions.set_read_only(world, bool(on))
    return f"A person switched read-only mode {'on' if on else 'off'} for the whole environment."


def point_to_database(
    world: World, server: Server, which: str = "upgraded", folder: str | None = None
) -> str:
    if which not in DATABASES:
        raise Refused(f"There is no database {which!r}. There are: {', '.join(DATABASES)}.")
    if not isinstance(folder, str | None):
        raise Refused("The folder is current, prepared or kept.")
    key = folder or ("prepared" if "prepared" in server.folders else "current")
    if key not in server.folders:
        raise Refused(f"{server.name} has no folder {key!r} now.")
    server.folders[key].database = which
    world.disk.write(server, key)
    # A person who looks into the file after the wrong start sees the mistake and mends it.
    if server.misbehaviours.get("wrong-database") == "in effect":
        del server.misbehaviours["wrong-database"]
    return f"The configuration of {server.name} in its {key} folder points to the {which} database."


def set_upgrade_mode(world: World, server: Server, on: bool = True) -> str:
    server.current.upgrade_mode = bool(on)
    world.disk.write(server, "current")
    return f"upgrade-mode=1 {'stands in' if on else 'is gone from'} the configuration file of {server.name}."


def set_option(
    world: World, server: Server, section: str = "", option: str = "", value: str | None = None
) -> str:
    """Set or (without a value) delete an option. Mistakes with names show in the world, as in life."""
    if not section or not option:
        raise Refused("Name the section and the option, and the value to set it to.")
    for text in (section, option, value or ""):
        if not isinstance(text, str) or any(sign in text for sign in "\n\r[]=/"):
            raise Refused("Section, option and value are plain texts on one line.")
    options = server.current.options
    if value is None:
        options.pop(f"{section}/{option}", None)
    else:
        options[f"{section}/{option}"] = value
    world.disk.write(server, "current")
    return f"[{section}] {option} of {server.name} " + (
        f"is set to {value}." if value is not None else "is deleted."
    )


def crash(world: World, server: Server) -> str:
    if not server.up:
        raise Refused(f"{server.name} is down; what does not run cannot crash.")
    reactions.fall(world, server)
    return f"{server.name} has crashed."


def backup_database(world: World, which: str = "old") -> str:
    if which not in DATABASES:
        raise Refused(f"There is no database {which!r}. There are: {', '.join(DATABASES)}.")
    folder = world.root / "hosts" / "database"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"configuration_{which}.dump"
    file.write_text(f"simulated copy of the {which} configuration database, {world.spec['name']}\n")
    return f"The {which} configuration database is copied to {file}."


def change_object(world: World, server: Server) -> str:
    """Somebody changes the configuration: a Standard event, and a breach if it happens in read-only mode."""
    if not server.serves:
        raise Refused(f"{server.name} is {server.mode}; only a primary takes changes.")
    who = "is changed by client, type [SCE], name: [default], user: [somebody]"
    world.event(server, 24201, f"Object: [CfgFolder], name [Exited Agents], DBID: [2422] {who}")
    return f"Somebody changed an object through {server.name}."


def reset(world: World) -> str:
    world.begin()
    return f"World {world.spec['name']} is as it was at its beginning."


def _must_be_down(server: Server) -> None:
    if server.up:
        raise Refused(f"{server.name} still runs ({server.mode}); its folder is in use. Stop it first.")


WAITS_FOR_THE_END = frozenset({"start", "replace-folder", "restore-folder"})

ACTIONS: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "stop": (stop, ("server",)),
    "start": (start, ("server",)),
    "install": (install, ("server", "version")),
    "replace-folder": (replace_folder, ("server",)),
    "restore-folder": (restore_folder, ("server",)),
    "set-read-only": (set_read_only, ("on",)),
    "point-to-database": (point_to_database, ("server", "which", "folder")),
    "set-upgrade-mode": (set_upgrade_mode, ("server", "on")),
    "set-option": (set_option, ("server", "section", "option", "value")),
    "crash": (crash, ("server",)),
    "backup-database": (backup_database, ("which",)),
    "change-object": (change_object, ("server",)),
    "reset": (reset, ()),
}
