"""The HTTP control of the worlds: JSON, loopback only, for the demo, rehearsals and tests.

GET /health · GET /scenarios · GET and POST /worlds · GET and DELETE /worlds/ID · POST /worlds/ID/act ·
POST /worlds/ID/do-step · POST /worlds/ID/misbehave. A refusal is 409, a mistake 400, each with {"error": text}.
"""

from __future__ import annotations

import json
import signal
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simulator.agents import AgentFailed
from simulator.hall import Hall, NoSuchWorld
from simulator.misbehaviours import MISBEHAVIOURS
from simulator.model import Refused
from simulator.scenarios import SCENARIOS
from simulator.script import actions_for
from simulator.spec import WORLDS, BadSpec

BODY_LIMIT = 1 << 20
LINES_LIMIT = 1000


class BadRequest(Exception):
    """A request that cannot be read; the text says how to ask."""


class Service(ThreadingHTTPServer):
    """The server of one hall. Raises ValueError for an address that is not a loopback one."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], hall: Hall) -> None:
        if not ip_address(address[0]).is_loopback:
            raise ValueError(
                f"The simulator listens on loopback addresses only, not on {address[0]}. Use 127.0.0.1."
            )
        self.hall = hall
        super().__init__(address, Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One request: reads it, asks the hall, answers."""

    protocol_version = "HTTP/1.1"
    server_version = "simulator"
    sys_version = ""
    timeout = 60
    disable_nagle_algorithm = True  # head and body go in two writes
    server: Service

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, *_args: Any) -> None:
        """Write nothing: requests are no news."""

    def _answer(self, method: str) -> None:
        try:
            body = self._body()
            self._check_sender(method)
            status, content = self._route(method, body)
        except (BadSpec, BadRequest) as mistake:
            status, content = HTTPStatus.BAD_REQUEST, {"error": str(mistake)}
        except Refused as refusal:
            status, content = HTTPStatus.CONFLICT, {"error": str(refusal)}
        except NoSuchWorld as missing:
            status = HTTPStatus.NOT_FOUND
            content = {"error": f"There is no world {missing.args[0]!r}. GET /worlds lists them."}
        except AgentFailed as failure:
            status, content = HTTPStatus.BAD_GATEWAY, {"error": str(failure)}
        self._send(status, content)

    def _route(self, method: str, body: Any) -> tuple[HTTPStatus, Any]:
        hall, address = self.server.hall, urlsplit(self.path)
        match method, *address.path.strip("/").split("/"):
            case "GET", "health":
                return HTTPStatus.OK, {"state": "up", "worlds": len(hall.identities())}
            case "GET", "scenarios":
                return HTTPStatus.OK, {
                    "scenarios": {name: scenario.as_json() for name, scenario in SCENARIOS.items()},
                    "misbehaviours": MISBEHAVIOURS,
                    "worlds": {name: make() for name, make in WORLDS.items()},
                }
            case "GET", "worlds":
                return HTTPStatus.OK, {"worlds": hall.identities()}
            case "POST", "worlds":
                return HTTPStatus.CREATED, hall.make(body)
            case "GET", "worlds", identity:
                return HTTPStatus.OK, hall.view(identity, _lines(address.query))
            case "DELETE", "worlds", identity:
                hall.remove(identity)
                return HTTPStatus.OK, {"removed": identity}
            case "POST", "worlds", identity, "act":
                return HTTPStatus.OK, hall.act(identity, body)
            case "POST", "worlds", identity, "do-step":
                return HTTPStatus.OK, hall.act(identity, {"actions": _scripted(body)})
            case "POST", "worlds", identity, "misbehave":
                return HTTPStatus.OK, hall.misbehave(identity, body)
        return HTTPStatus.NOT_FOUND, {"error": f"Nothing answers to {method} {address.path}."}

    def _check_sender(self, method: str) -> None:
        """Refuse what a web page of another site could make a browser send."""
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in ("127.0.0.1", "localhost", "[::1]"):
            raise BadRequest("Ask by a loopback address: the Host header names another one.")
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        if method == "POST" and kind != "application/json":
            raise BadRequest("Send JSON with Content-Type: application/json.")

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > BODY_LIMIT or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise BadRequest(f"A body has a Content-Length of at most {BODY_LIMIT} bytes.")
        raw = self.rfile.read(int(length))
        try:
            return json.loads(raw) if raw else {}
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"The body is not JSON: {error}.") from error

    def _send(self, status: HTTPStatus, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _scripted(body: Any) -> list[dict[str, Any]]:
    """The actions of {"step", "roles": {"new", "old"}, "parameters"?}, as `script.actions_for` knows them."""
    if not isinstance(body, dict) or not isinstance(body.get("step"), str):
        raise BadRequest('Name the step: {"step": "launch-new", "roles": {"new": "…", "old": "…"}}.')
    roles, parameters = body.get("roles"), body.get("parameters", {})
    if not isinstance(roles, dict) or not isinstance(parameters, dict):
        raise BadRequest("roles and parameters are objects.")
    try:
        actions = actions_for(body["step"], roles, parameters)
    except KeyError as missing:
        raise BadRequest(f"The step needs a server in the role {missing}.") from missing
    if not actions:
        raise Refused("In this step nothing is done on the servers: look, confirm or sign.")
    return actions


def _lines(query: str) -> int:
    text = parse_qs(query).get("lines", ["20"])[0]
    if not text.isdigit() or int(text) > LINES_LIMIT:
        raise BadRequest(f"lines is a whole number from 0 to {LINES_LIMIT}.")
    return int(text)


def serve(service: Service, hall: Hall) -> None:
    """Answer until SIGTERM or SIGINT, then keep the worlds and end their agents."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    answering = threading.Thread(target=service.serve_forever, name="answering", daemon=True)
    answering.start()
    ending.wait()
    service.shutdown()
    service.server_close()
    hall.close()
