"""The installation folders of a world as real folders and files, so that an agent can look at them."""

from __future__ import annotations

import shutil
from pathlib import Path

from simulator.model import Folder, Server
from simulator.spec import path_name

BINARIES = {
    "ConfigurationServer": "confserv",
    "ConfigurationServerProxy": "confserv",
    "SCS": "scs",
    "MessageServer": "messageserver",
    "LCA": "lca",
}


class Disk:
    """The folders below a world's root: `hosts/HOST/gcti`, `hosts/HOST/log` and `hosts/HOST/run`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, server: Server, key: str) -> Path:
        """Path of the current, prepared or kept folder; it need not exist. The kept one is named after the
        version that the server had when the world began."""
        suffix = {"current": "", "prepared": "_new", "kept": f"_{server.first_version}"}[key]
        return self._host(server) / "gcti" / f"{path_name(server.name)}{suffix}"

    def logs(self, server: Server) -> Path:
        return self._host(server) / "log" / path_name(server.name)

    def pid_file(self, server: Server) -> Path:
        return self._host(server) / "run" / f"{path_name(server.name)}.pid"

    def configuration(self, server: Server) -> str:
        """Name of the configuration file inside a folder."""
        return f"{self._binary(server)}.conf"

    def command_line(self, server: Server) -> str:
        name = f"'{server.name}'" if " " in server.name else server.name
        return f"./{self._binary(server)} -s {name}"

    def write(self, server: Server, key: str) -> None:
        """Bring the files of a folder in line with the world's state of it."""
        content, path = server.folders[key], self.folder(server, key)
        path.mkdir(parents=True, exist_ok=True)
        (path / self.configuration(server)).write_text(_ini(server, content, self.logs(server)))
        (path / "run.sh").write_text(f"#!/bin/sh\nexec {self.command_line(server)}\n")
        (path / self._binary(server)).write_text(f"simulated executable, version {content.version}\n")

    def move(self, server: Server, source: str, target: str) -> None:
        self.folder(server, source).rename(self.folder(server, target))

    def remove(self, server: Server, key: str) -> None:
        shutil.rmtree(self.folder(server, key), ignore_errors=True)

    def set_pid(self, server: Server, pid: int) -> None:
        path = self.pid_file(server)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{pid}\n")

    def clear_pid(self, server: Server) -> None:
        self.pid_file(server).unlink(missing_ok=True)

    def wipe(self) -> None:
        shutil.rmtree(self.root / "hosts", ignore_errors=True)

    def _host(self, server: Server) -> Path:
        return self.root / "hosts" / server.host

    def _binary(self, server: Server) -> str:
        return BINARIES.get(server.type, "server")


def _ini(server: Server, folder: Folder, logs: Path) -> str:
    sections: dict[str, dict[str, str]] = {folder.section: {"port": str(server.port)}}
    if server.configuration:
        sections[folder.section]["server"] = "dbserver"
        if folder.upgrade_mode:
            sections[folder.section]["upgrade-mode"] = "1"
        sections["dbserver"] = {
            "dbengine": "simulated",
            "dbname": f"configuration_{folder.database}",
        }
    sections["log"] = {
        "verbose": "all",
        "all": str(logs / path_name(server.name)),
        "message_format": server.message_format,
        "time_format": server.time_format,
    }
    for key, value in folder.options.items():
        section, _, option = key.partition("/")
        sections.setdefault(section, {})[option] = value
    blocks = [
        f"[{name}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
        for name, options in sections.items()
    ]
    return "\n".join(blocks)
