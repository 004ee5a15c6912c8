"""The agent's door: signed questions below /v1/, signed answers, nothing else."""

import hashlib
import http.client
import http.server
import io
import re
import secrets
import select
import socket
import socketserver
import ssl
import sys
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from agent import messages, probes
from agent.configuration import Configuration
from agent.folders import is_plain_name
from agent.messages import CLOCK_WINDOW, Nonsense, Pairs
from agent.polling import Logs, Question

RELEASE = "1.0.0"
AT_ONCE = 4  # questions answered at the same time
CONNECTIONS = 64
HEAD_LIMIT = messages.QUERY_LIMIT + 20 * 1024  # bytes of a question's head; http.server alone takes 6 MB
PATIENCE = 30.0  # seconds in which a question must have arrived, also the time a connection may idle
PIECE = 64 * 1024  # bytes of a body that nobody wants, read at a time
LONG = "/v1/poll"  # the one question that may name too many files for a line
_NONCES = 200000  # questions within the time window, about 30 MB

_LENGTH = re.compile(r"[0-9]{1,9}\Z", re.ASCII)

_Query = Dict[str, List[str]]


class Refusal(Exception):
    """A question that is not answered. `status` and `code` for programs, the text for people."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super(Refusal, self).__init__(text)
        self.status = status
        self.code = code

    def body(self) -> bytes:
        return messages.write_json({"error": {"code": self.code, "message": str(self)}})


class Asker(NamedTuple):
    """Who asked, proved by a signature: the answer is signed with the same key over the same nonce."""

    key_id: str
    secret: str
    nonce: str


class Nonces:
    """The nonces seen within the time window, so that no question is answered twice."""

    def __init__(self) -> None:
        self._until: Dict[str, float] = {}
        self._lock = threading.Lock()

    def remember(self, nonce: str, until: float, now: float) -> None:
        """Remembers a nonce `until` then; Refusal if it is known already, or more are than can be remembered."""
        with self._lock:
            if len(self._until) >= _NONCES:
                self._until = {seen: end for seen, end in self._until.items() if end > now}
            if nonce in self._until:
                raise Refusal(
                    401, "replay", "This question was asked before: ask again with a nonce of its own."
                )
            if len(self._until) >= _NONCES:
                raise Refusal(
                    429, "busy", "More questions came lately than the agent answers: ask more slowly."
                )
            self._until[nonce] = until


class Agent:
    """Answers questions that were received: knows the configuration, not the network."""

    def __init__(self, configuration: Configuration, now: Callable[[], float] = time.time) -> None:
        self.configuration = configuration
        self.boot = secrets.token_hex(8)
        self.now = now
        self.stopping = threading.Event()
        self._logs = Logs(configuration, now)
        self._nonces = Nonces()
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    def recognise(
        self,
        headers: Any,
        path: str,
        query: str,
        method: str = "GET",
        content: str = messages.EMPTY_BODY,
    ) -> Asker:
        """Who asked; Refusal 401 if the signature is not of one of the keys. The clock is not looked at yet.

        `content`: the SHA-256 of the body, as the question says it.
        """
        name, nonce = headers.get(messages.AGENT_HEADER, ""), headers.get(messages.NONCE_HEADER, "")
        stamp, key_id = headers.get(messages.TIME_HEADER, ""), headers.get(messages.KEY_HEADER, "")
        given, secret = headers.get(messages.SIGNATURE_HEADER, ""), self.configuration.keys.get(key_id)
        if headers.get(messages.VERSION_HEADER) != str(messages.VERSION):
            raise Refusal(400, "version", "This agent speaks version %d of the protocol." % messages.VERSION)
        if (
            secret
            and name == self.configuration.agent
            and messages.NONCE.match(nonce)
            and messages.TIME.match(stamp)
        ):
            expected = messages.request_signature(secret, name, method, path, query, stamp, nonce, content)
            if messages.same(expected, given):
                return Asker(key_id, secret, nonce)
        raise Refusal(401, "signature", "The question is not signed with a key of this agent.")

    def refuse_replay(self, headers: Any) -> None:
        """Refusal 401 if the question is too old or too new for this clock, or was asked before."""
        asked, now = float(headers[messages.TIME_HEADER]), self.now()
        if abs(now - asked) > CLOCK_WINDOW:
            text = "The clocks of server and agent differ by %d seconds; at most %d are accepted: set the clocks."
            raise Refusal(401, "clock", text % (abs(now - asked), CLOCK_WINDOW))
        # + 1: the time in the question has no fractions.
        self._nonces.remember(headers[messages.NONCE_HEADER], asked + CLOCK_WINDOW + 1, now)

    def answer(self, path: str, pairs: Pairs, alive: Callable[[], bool]) -> Optional[bytes]:
        """The body that answers a question; None if nobody waits for it any more; Refusal as it comes."""
        doors = {"/v1/health": self._health, "/v1/logs": self._list, "/v1/probe": self._probe}
        if path != "/v1/poll" and path not in doors:
            raise Refusal(
                404, "path", "There is no such question; there are health, logs, poll and probe below /v1/."
            )
        if not self._slots.acquire(False):
            raise Refusal(
                429, "busy", "The agent answers %d questions at once and these are being answered." % AT_ONCE
            )
        try:
            found = self._poll(pairs, alive) if path == "/v1/poll" else doors[path](pairs)
        except Nonsense as nonsense:
            raise Refusal(400, "query", "The question is not understood: %s." % nonsense) from None
        finally:
            self._slots.release()
        if found is None:
            return None
        body = messages.write_json(found)
        if len(body) > messages.BODY_LIMIT:
            raise Refusal(
                413, "too-large", "The answer would be too large: ask for fewer applications at once."
            )
        return body

    def _health(self, pairs: Pairs) -> Dict[str, Any]:
        _only(pairs, {})
        return {
            "agent": self.configuration.agent,
            "version": RELEASE,
            "boot": self.boot,
            "time": self.now(),
            "applications": [application.name for application in self.configuration.applications],
        }

    def _list(self, pairs: Pairs) -> Dict[str, Any]:
        query = _only(pairs, {"application": 100})
        return {"applications": self._logs.list(self._applications(query))}

    def _poll(self, pairs: Pairs, alive: Callable[[], bool]) -> Optional[Dict[str, Any]]:
        query = _only(
            pairs, {"application": 100, "cursor": messages.CURSORS_LIMIT, "process": 100, "wait": 1}
        )
        names = self._applications(query)
        cursors = tuple(messages.read_cursor(text) for text in query["cursor"])
        processes = dict(messages.read_process(text) for text in query["process"])
        if len(set((cursor.application, cursor.file) for cursor in cursors)) != len(cursors):
            raise Nonsense("there are two cursors for one file")
        for name in [cursor.application for cursor in cursors] + list(processes):
            if name not in names:
                self._known(name)
                raise Nonsense("a cursor or a process belongs to an application that is not asked for")
        question = Question(names, cursors, processes, _wait(query["wait"]))
        found = self._logs.poll(question, alive, self.stopping.is_set)
        return None if found is None else {"applications": found}

    def _probe(self, pairs: Pairs) -> Dict[str, Any]:
        query = _only(pairs, {"application": 1, "what": 1, "folder": 1, "file": 1})
        name, what = _one(query, "application"), _one(query, "what")
        if what not in messages.PROBES:
            raise Nonsense("what is one of %s" % ", ".join(messages.PROBES))
        needed = {"process": (), "folder": ("folder",), "names": ("folder",), "hash": ("folder", "file")}[
            what
        ]
        for key in ("folder", "file"):
            if bool(query[key]) != (key in needed):
                raise Nonsense("%s is %s with %s" % (key, "needed" if key in needed else "not asked", what))
        application = self._logs.watched[self._known(name)].application
        if what == "process":
            return dict(probes.process(application)._asdict())
        path = self._folder(application.folders, query["folder"][0])
        if what == "folder":
            return probes.folder(path)
        if what == "names":
            return probes.names(application, path)
        if not is_plain_name(query["file"][0]):
            raise Nonsense("file is the plain name of a file in that folder")
        return probes.file_hash(path, query["file"][0])

    def _applications(self, query: _Query) -> Tuple[str, ...]:
        names = query["application"] or list(self._logs.watched)
        return tuple(self._known(name) for name in sorted(set(names), key=names.index))

    def _known(self, name: str) -> str:
        if name not in self._logs.watched:
            raise Refusal(404, "application", "The agent's configuration has no application of that name.")
        return name

    @staticmethod
    def _folder(folders: Dict[str, str], key: str) -> str:
        if key not in folders:
            raise Refusal(
                404, "folder", "The agent's configuration has no folder of that name for this application."
            )
        return folders[key]


def _only(pairs: Pairs, allowed: Dict[str, int]) -> _Query:
    """The values of each allowed name; Nonsense for other names, or more values than allowed."""
    query: _Query = {name: [] for name in allowed}
    for name, value in pairs:
        if name not in query:
            raise Nonsense("it has a part that does not belong to this question")
        query[name].append(value)
        if len(query[name]) > allowed[name]:
            raise Nonsense("%s is given more than %d times" % (name, allowed[name]))
    return query


def _one(query: _Query, name: str) -> str:
    if not query[name]:
        raise Nonsense("%s is missing" % name)
    return query[name][0]


def _wait(values: List[str]) -> float:
    if not values:
        return 0.0
    if not messages.TIME.match(values[0]) or float(values[0]) > messages.WAIT_LIMIT:
        raise Nonsense("wait is a number of seconds up to %d" % messages.WAIT_LIMIT)
    return float(values[0])


# -- the network ----------------------------------------------------------------------------------------------------


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Listens on one address; a thread per connection, a bound on connections, and on the time a question takes."""

    daemon_threads = True
    request_queue_size = 32
    # On Windows the option would let another program listen on the same address.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, agent: Agent) -> None:
        configuration = agent.configuration
        self.agent = agent
        self.address_family = socket.AF_INET6 if ":" in configuration.host else socket.AF_INET
        self.tls = _tls(configuration)
        self._lock = threading.Lock()
        self._open: Dict[Any, Optional[float]] = {}
        super(Server, self).__init__((configuration.host, configuration.port), Handler)

    @property
    def url(self) -> str:
        host = (
            "[%s]" % self.agent.configuration.host
            if ":" in self.agent.configuration.host
            else self.server_name
        )
        return "%s://%s:%d" % ("https" if self.tls else "http", host, self.server_port)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks the name service for the host's full name, which can take long.
        socketserver.TCPServer.server_bind(self)
        self.server_name = self.agent.configuration.host
        self.server_port = self.server_address[1]

    def get_request(self) -> Tuple[Any, Any]:
        request, address = super(Server, self).get_request()
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        return request, address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._open) >= CONNECTIONS
            if not full:
                self._open[request] = time.monotonic()
        if full:
            self.shutdown_request(request)
        else:
            super(Server, self).process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super(Server, self).shutdown_request(request)

    def reading(self, request: Any, since: Optional[float]) -> None:
        """Notes since when a connection's next question is awaited; None while one is answered."""
        with self._lock:
            if request in self._open:
                self._open[request] = since

    def service_actions(self) -> None:
        """Ends connections that take too long for a question: a byte now and then does not keep them open."""
        now = time.monotonic()
        with self._lock:
            late = [
                request
                for request, since in self._open.items()
                if since is not None and now - since > PATIENCE
            ]
        for request in late:
            try:
                socket.socket.shutdown(
                    request, socket.SHUT_RDWR
                )  # not TLS's own: another thread reads from it
            except OSError:
                pass

    def answering(self) -> bool:
        with self._lock:
            return any(since is None for since in self._open.values())

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, ssl.SSLError)):  # a connection that broke is nobody's mistake here
            super(Server, self).handle_error(request, client_address)


def _tls(configuration: Configuration) -> Optional[ssl.SSLContext]:
    if not configuration.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    versions = getattr(ssl, "TLSVersion", None)
    if versions:
        setattr(context, "minimum_version", versions.TLSv1_2)  # noqa: B010 - unknown to Python 3.6
    else:
        context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    context.load_cert_chain(configuration.certificate, configuration.certificate_key)
    return context


class Incoming(io.BufferedReader):
    """What a connection brings, line by line; LineTooLong where a question's head has no room for the line."""

    room = 0

    def readline(self, size: Optional[int] = -1) -> bytes:
        asked = self.room + 1 if size is None or size < 0 else min(size, self.room + 1)
        line = super(Incoming, self).readline(asked)
        self.room -= len(line)
        if self.room < 0:
            raise http.client.LineTooLong("head")
        return line


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection: reads questions, has them answered, signs the answers."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    disable_nagle_algorithm = True
    rbufsize = 0  # `Incoming` has the buffer
    wbufsize = 64 * 1024  # head and body of an answer leave together
    default_request_version = "HTTP/1.0"
    server: Server
    _asker: Optional[Asker] = None  # of the question at hand, once its signature was found good

    def setup(self) -> None:
        super(Handler, self).setup()
        self.rfile = self._incoming = Incoming(self.connection.makefile("rb", 0))
        if self.server.tls:
            # In this connection's thread, with its time-out: a silent client does not keep the others from connecting.
            self.request.do_handshake()

    def handle_one_request(self) -> None:
        self.server.reading(self.request, time.monotonic())
        self._incoming.room = HEAD_LIMIT
        super(Handler, self).handle_one_request()

    def do_GET(self) -> None:
        self._answer(self._asked_in_a_line)

    def do_POST(self) -> None:
        if self.path == LONG:
            self._answer(self._asked_in_a_body)
        else:
            self.send_error(405)

    def _answer(self, asked: Callable[[], Tuple[str, Pairs]]) -> None:
        """Answers what was `asked`: path and pairs of a question that is signed and new, or a Refusal."""
        self._asker = None
        try:
            path, pairs = asked()
            body = self.server.agent.answer(path, pairs, self._is_waited_for)
        except Refusal as refusal:
            self._note("%d %s" % (refusal.status, refusal.code))
            self._reply(refusal.status, refusal.body(), self._asker)
        except OSError:
            self.close_connection = True
            raise
        except Exception:
            # Whatever it was: this question fails, the agent goes on, and nothing of it is told to the asker.
            self.server.handle_error(self.request, self.client_address)
            failure = Refusal(
                500, "failed", "The agent failed over this question; its own log has the reason."
            )
            self._reply(failure.status, failure.body(), self._asker)
        else:
            if body is None:
                self.close_connection = True
            else:
                self._reply(200, body, self._asker)

    def _asked_in_a_line(self) -> Tuple[str, Pairs]:
        self.server.reading(self.request, None)
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise Refusal(400, "body", "A question in a line has no body.")
        if not self.path.startswith("/") or len(self.path) > messages.QUERY_LIMIT:
            raise Refusal(
                400,
                "path",
                "A question is a path and a query of at most %d characters." % messages.QUERY_LIMIT,
            )
        try:
            parts = urlsplit(self.path)
            pairs = messages.read_query(parts.query)
        except ValueError:
            raise Refusal(400, "query", "The query is not well formed.") from None
        query = messages.canonical_query(pairs)
        self._asker = self.server.agent.recognise(self.headers, parts.path, query)
        self.server.agent.refuse_replay(self.headers)
        return parts.path, pairs

    def _asked_in_a_body(self) -> Tuple[str, Pairs]:
        """The body is kept only if what the head says of it is signed: nobody else can fill the host's memory."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not _LENGTH.match(length):
            self.close_connection = True
            raise Refusal(400, "body", "A question in a body tells the body's length.")
        if int(length) > messages.FORM_LIMIT:
            self.close_connection = True
            raise Refusal(
                413, "too-large", "A question in a body has at most %d bytes." % messages.FORM_LIMIT
            )
        content = self.headers.get(messages.CONTENT_HEADER, "")
        try:
            self._asker = self.server.agent.recognise(self.headers, self.path, "", "POST", content=content)
            self.server.agent.refuse_replay(self.headers)
        except Refusal:
            self._pass_over(int(length))
            raise
        body = self.rfile.read(int(length))
        self.server.reading(self.request, None)
        if not messages.same(hashlib.sha256(body).hexdigest(), content):
            self.close_connection = True
            raise Refusal(400, "body", "The body is not the one that was signed.")
        try:
            return self.path, messages.read_query(body.decode("ascii"))
        except ValueError:
            raise Refusal(400, "query", "The query is not well formed.") from None

    def _pass_over(self, length: int) -> None:
        """Reads what is left of a question, so that its refusal arrives: who still sends may lose the answer."""
        while length > 0:
            read = len(self.rfile.read(min(length, PIECE)))
            length = length - read if read else 0

    def _is_waited_for(self) -> bool:
        """Whether the asker is still there: a poll for nobody must not occupy a place."""
        try:
            if not select.select([self.request], [], [], 0)[0]:
                return True
            # With TLS nothing but the end can come now: the next question waits for this answer.
            return not self.server.tls and bool(self.request.recv(1, socket.MSG_PEEK))
        except (OSError, ValueError):
            return False

    def _reply(self, status: int, body: bytes, asker: Optional[Asker]) -> None:
        agent = self.server.agent
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if asker:
            name = agent.configuration.agent
            headers = messages.reply_headers(
                asker.secret, name, asker.key_id, asker.nonce, status, agent.boot, agent.now(), body
            )
            for header, value in headers.items():
                self.send_header(header, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def send_error(self, code: int, *_: Any, **__: Any) -> None:
        """Answers what is not even a question in HTTP: shortly, unsigned, and ends the connection."""
        self.close_connection = True
        status = 405 if code == 501 else code
        refusal = Refusal(
            status,
            "http",
            "The agent answers GET, and POST of %s." % LONG if status == 405 else "This is no question.",
        )
        self._note("%d http" % status)
        self._reply(status, refusal.body(), None)

    def _note(self, text: str) -> None:
        sys.stderr.write("%s refused %s: %s\n" % (self.log_date_time_string(), self.client_address[0], text))

    def version_string(self) -> str:
        return "runbook-agent"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Answers are not logged: whoever asks keeps the record."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """As above; refusals are noted by `_note`."""
