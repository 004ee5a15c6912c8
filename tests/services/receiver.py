"""A program that receives webhooks: a real server on this machine that answers as a test tells it to."""

import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict
    body: bytes


class Receiver:
    """`answers` are what it says to the next requests: a status, or a function of the handler; then 204 to all."""

    def __init__(self):
        self.received = []
        self.answers = []
        self.ended = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(Received(self.path, dict(self.headers), body))
                answer = receiver.answers.pop(0) if receiver.answers else 204
                if callable(answer):
                    answer(self)
                    return
                self.send_response(answer)
                if answer in (301, 302, 307):
                    self.send_header("Location", f"{receiver.url}elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 64
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self):
        return self._server.server_address[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def drip(self, handler):
        """A header byte now and then, for ever: every single one comes in time, the answer never."""
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.ended.wait(0.1):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    def flood(self, handler):
        """A body without end."""
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nConnection: close\r\n\r\n")
        until = time.monotonic() + 30
        while not self.ended.is_set() and time.monotonic() < until:
            try:
                handler.wfile.write(b"x" * 65536)
            except OSError:
                return

    def close(self):
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
