"""What the agent may show, from its own file: strict, and all mistakes are told at once."""

import ntpath
import os
import posixpath
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from agent import messages
from agent.folders import is_plain_name

_SIZE_LIMIT = 1024 * 1024


class Mistakes(Exception):
    """A configuration that is not accepted; `found` has one sentence per mistake."""

    def __init__(self, found: List[str]) -> None:
        super(Mistakes, self).__init__("\n".join(found))
        self.found = found


class Log(NamedTuple):
    folder: str
    pattern: str


class Application(NamedTuple):
    """One server on this host. Empty text and None mean: not told, so it cannot be looked at."""

    name: str
    type: str
    log: Optional[Log]
    folders: Dict[str, str]
    configuration: str
    start_file: str
    pid_file: str
    command: Tuple[str, ...]


class Configuration(NamedTuple):
    agent: str
    host: str
    port: int
    certificate: str
    certificate_key: str
    keys: Dict[str, str]
    applications: Tuple[Application, ...]


def load(path: str) -> Configuration:
    """The configuration in a file; Mistakes if it cannot be read or anything in it is not as it must be."""
    try:
        with open(path, "rb") as stream:
            body = stream.read(_SIZE_LIMIT + 1)
    except OSError as error:
        raise Mistakes(["%s cannot be read: %s." % (path, error.strerror)]) from None
    return parse(body)


def parse(body: bytes) -> Configuration:
    """The configuration in a JSON text; Mistakes otherwise."""
    try:
        # Some editors of Windows begin a file with a byte order mark.
        value = messages.read_json(body[3:] if body.startswith(b"\xef\xbb\xbf") else body, _SIZE_LIMIT)
    except messages.Nonsense as nonsense:
        raise Mistakes(["The configuration is not accepted: %s." % nonsense]) from None
    reader = _Reader()
    configuration = reader.configuration(value)
    if reader.mistakes:
        raise Mistakes(reader.mistakes)
    return configuration


def warnings(path: str, configuration: Configuration) -> List[str]:
    """What is allowed but should be mended before the agent guards anything that matters."""
    found = []
    if os.name == "posix" and os.stat(path).st_mode & 0o077:
        found.append("%s holds keys and others may read it: chmod 600 it." % path)
    if not configuration.certificate and configuration.host not in ("127.0.0.1", "::1", "localhost"):
        found.append(
            "Log lines travel in the clear: set tls, or listen on 127.0.0.1 behind something that does."
        )
    return found


class _Reader:
    """Reads the parts one after the other and collects what is wrong, each with its place."""

    def __init__(self) -> None:
        self.mistakes: List[str] = []

    def configuration(self, value: Any) -> Configuration:
        found = self._object(value, "", ("agent", "listen", "keys", "applications"), ("tls",))
        agent = self._text(
            found, "agent", "", _fits(messages.AGENT_ID), "letters, digits, dots, dashes and underscores"
        )
        host, port = self._listen(found)
        tls = self._part(found, "tls", "", ("certificate", "key"))
        certificate = self._text(tls, "certificate", "tls.", os.path.isfile, "an existing file")
        certificate_key = self._text(tls, "key", "tls.", os.path.isfile, "an existing file")
        keys = self._keys(found)
        applications = self._applications(found)
        return Configuration(agent, host, port, certificate, certificate_key, keys, applications)

    def _listen(self, found: Dict[str, Any]) -> Tuple[str, int]:
        text = self._text(
            found, "listen", "", lambda text: ":" in text, "an address and a port, as 127.0.0.1:7101"
        )
        host, _, port = text.rpartition(":")
        if not text:
            return "", 0
        if not host.strip("[]") or not (port.isdigit() and len(port) < 6 and int(port) < 65536):
            self._wrong("listen", "an address and a port up to 65535, as 127.0.0.1:7101")
            return "", 0
        return host.strip("[]"), int(port)

    def _keys(self, found: Dict[str, Any]) -> Dict[str, str]:
        keys: Dict[str, str] = {}
        for place, item in self._list(found, "keys", "", 1, 2):
            key = self._object(item, place, ("id", "secret"), ())
            name = self._text(
                key,
                "id",
                place + ".",
                _fits(messages.KEY_ID),
                "letters, digits, dots, dashes and underscores",
            )
            secret = self._text(
                key, "secret", place + ".", _fits(messages.SECRET), "64 hexadecimal digits in lower case"
            )
            if name in keys:
                self.mistakes.append("%s.id: %s is there twice." % (place, name))
            if secret and secret in keys.values():
                self.mistakes.append("%s.secret: both keys have the same secret." % place)
            keys[name] = secret
        return keys

    def _applications(self, found: Dict[str, Any]) -> Tuple[Application, ...]:
        applications: List[Application] = []
        for place, item in self._list(found, "applications", "", 1, 100):
            application = self._application(item, place)
            if application.name and application.name in [other.name for other in applications]:
                self.mistakes.append("%s.name: %s is there twice." % (place, application.name))
            applications.append(application)
        return tuple(applications)

    def _application(self, value: Any, place: str) -> Application:
        optional = ("log", "folders", "configuration", "start-file", "process")
        found = self._object(value, place, ("name", "type"), optional)
        dot = place + "."
        name = self._text(found, "name", dot, _is_label, "1 to 255 visible characters")
        kind = self._text(found, "type", dot, _is_label, "1 to 255 visible characters")
        configuration = self._text(
            found, "configuration", dot, is_plain_name, "the plain name of a file in a folder"
        )
        start_file = self._text(
            found, "start-file", dot, is_plain_name, "the plain name of a file in a folder"
        )
        pid_file, command = self._process(found, dot)
        return Application(
            name,
            kind,
            self._log(found, dot),
            self._folders(found, dot),
            configuration,
            start_file,
            pid_file,
            command,
        )

    def _log(self, found: Dict[str, Any], dot: str) -> Optional[Log]:
        if "log" not in found:
            return None
        log = self._part(found, "log", dot, ("folder", "pattern"))
        folder = self._text(log, "folder", dot + "log.", is_full_path, "a full path without '..'")
        pattern = self._text(
            log, "pattern", dot + "log.", _is_pattern, "a file name in which * and ? may stand"
        )
        return Log(folder, pattern)

    def _folders(self, found: Dict[str, Any], dot: str) -> Dict[str, str]:
        value = self._kind(
            found.get("folders", {}), dict, dot + "folders", "an object of names and full paths"
        )
        folders = {}
        for key in value or {}:
            if not messages.FOLDER_KEY.match(key):
                self._wrong(dot + "folders", "keyed by a-z, 0-9 and dashes only; %r is not" % key)
            folders[key] = self._text(value, key, dot + "folders.", is_full_path, "a full path without '..'")
        return folders

    def _process(self, found: Dict[str, Any], dot: str) -> Tuple[str, Tuple[str, ...]]:
        if "process" not in found:
            return "", ()
        process = self._object(found["process"], dot + "process", (), ("pid-file", "command"))
        if len(process) != 1:
            self._wrong(dot + "process", "told by pid-file or by command, by one of them")
        pid_file = self._text(process, "pid-file", dot + "process.", is_full_path, "a full path without '..'")
        command = self._text(process, "command", dot + "process.", lambda text: bool(text.split()), "words")
        return pid_file, tuple(command.split())

    # -- the kinds of values --

    def _wrong(self, place: str, right: str) -> None:
        self.mistakes.append("%s must be %s." % (place, right))

    def _kind(self, value: Any, kind: type, place: str, right: str) -> Any:
        if isinstance(value, kind):
            return value
        self._wrong(place or "The configuration", right)
        return None

    def _object(
        self, value: Any, place: str, needed: Tuple[str, ...], optional: Tuple[str, ...]
    ) -> Dict[str, Any]:
        found = self._kind(value, dict, place, "an object")
        if found is None:
            return {}
        dot = place + "." if place else ""
        for key in found:
            if key not in needed + optional:
                known = ", ".join(needed + optional)
                self.mistakes.append("%s%s is not known here; known are: %s." % (dot, key, known))
        for key in needed:
            if key not in found:
                self.mistakes.append("%s%s is missing." % (dot, key))
        return dict(found)

    def _part(self, found: Dict[str, Any], key: str, dot: str, needed: Tuple[str, ...]) -> Dict[str, Any]:
        return self._object(found[key], dot + key, needed, ()) if key in found else {}

    def _list(
        self, found: Dict[str, Any], key: str, dot: str, least: int, most: int
    ) -> List[Tuple[str, Any]]:
        if key not in found:
            return []
        value = self._kind(found[key], list, dot + key, "a list")
        if value is None:
            return []
        if not least <= len(value) <= most:
            self._wrong(dot + key, "a list of %d to %d" % (least, most))
        return [("%s%s[%d]" % (dot, key, index), item) for index, item in enumerate(value)]

    def _text(
        self, found: Dict[str, Any], key: str, dot: str, right: Callable[[str], Any], description: str
    ) -> str:
        """The text under a key; empty if it is missing (told elsewhere) or wrong (told here)."""
        if key not in found:
            return ""
        value = found[key]
        if not isinstance(value, str) or "\x00" in value or not right(value):
            self._wrong(dot + key, description)
            return ""
        return value


def _fits(pattern: Any) -> Callable[[str], bool]:
    return lambda text: bool(pattern.match(text))


def _is_label(text: str) -> bool:
    return 0 < len(text) <= 255 and text.isprintable() and text == text.strip()


def _is_pattern(text: str) -> bool:
    return is_plain_name(text.replace("*", "x").replace("?", "x").replace("[", "x").replace("]", "x"))


def is_full_path(text: str) -> bool:
    """A full path of this system, no device, no network share, no way upwards."""
    if ".." in text.replace("\\", "/").split("/"):
        return False
    if os.name == "nt":
        drive, rest = ntpath.splitdrive(text)
        return len(drive) == 2 and rest[:1] in ("\\", "/")
    return posixpath.isabs(text)
