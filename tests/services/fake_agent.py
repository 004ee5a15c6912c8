"""An agent that answers what a test tells it to, signed as a real one would; or does worse."""

import http.server
import threading
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from agent import messages
from agent.lines import take
from tests.agent.conftest import SECRET
from upgrades.adapters.agent_client import ApplicationNews, Cut, FilePart, News, Origin, Process
from upgrades.models import Agent

FILE = "fe00-20e092-812702a1550d251a"
OTHER = "fe00-20e093-0123456789abcdef"


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = (
        512  # one stands for hundreds of agents in some tests; none of their connections is turned away
    )


class FakeAgent:
    """Listens on a port of its own. `listed` are the log files that it shows: identity -> size."""

    def __init__(self):
        self.listed = {}
        self.complete = True
        self.asked = []
        self.answer = None  # a function of the handler, instead of the proper answers
        self.over = threading.Event()  # set at the end, so that an answer that waits for it ends, too
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.asked.append(self.path)
                if outer.answer is not None:
                    outer.answer(self)
                else:
                    signed(self, outer.found(self.path))

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stands_for(self, row):
        """From now on the registered agent `row` is this one."""
        Agent.objects.filter(pk=row.pk).update(url=self.url, key_id="k1", secret=SECRET)

    def found(self, path):
        asked = parse_qs(urlsplit(path).query)
        if path.startswith("/v1/health"):
            return {"agent": "", "version": "1", "boot": "0" * 16, "time": time.time(), "applications": []}
        process = {"state": "up", "reason": ""}
        files = [
            {"file": file, "name": "confserv.log", "size": size, "whole": size, "first": ""}
            for file, size in self.listed.items()
        ]
        entry = {
            "process": process,
            "files": files if path.startswith("/v1/logs") else [],
            "complete": self.complete,
            "trouble": [],
        }
        return {"applications": dict.fromkeys(asked["application"], entry)}

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def signed(handler, value):
    """Send `value` as the agent that was asked would."""
    agent, nonce = handler.headers[messages.AGENT_HEADER], handler.headers[messages.NONCE_HEADER]
    if "agent" in value:
        value["agent"] = agent
    body = messages.write_json(value)
    handler.send_response(200)
    for name, text in messages.reply_headers(
        SECRET, agent, "k1", nonce, 200, "0" * 16, time.time(), body
    ).items():
        handler.send_header(name, text)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


# News as a poll brings them, cut as the agent cuts.


def part(content, start=0, *, size=None, room=512 * 1024, silent=False, file=FILE, name="confserv.log"):
    """What the agent sends of a file with this content from `start` on, when it has `size` bytes so far."""
    size = len(content) if size is None else size
    piece = take(lambda at, count: content[at : at + count], start, size, room, silent)
    cuts = tuple(Cut(*cut) for cut in piece.cuts)
    return FilePart(
        file=file,
        name=name,
        size=size,
        start=start,
        end=piece.end,
        data=piece.data,
        partial=piece.partial,
        cuts=cuts,
        mark="",
        state="open",
        reason="",
    )


def lost(state, cursor, file=FILE):
    """A file that is `shrunk` or `gone`."""
    return FilePart(file, "", 0, cursor, cursor, b"", False, (), "", state, f"It is {state}.")


def news(*parts, application="confserv_b", process="unknown", host="fra-cfg-02"):
    found = ApplicationNews(Process(process, ""), tuple(parts), True, ())
    return News(Origin(host, "0" * 16, datetime.now(UTC), 0.0), {application: found})
