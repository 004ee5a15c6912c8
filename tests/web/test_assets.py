"""What the vendored htmx and its hx-csp extension do in a real browser, under the policy that every page has.

A new version of htmx may change what its safety rests on (that happened between 2 and 4: `hx-disable` got
another meaning). These tests are the alarm: they must pass before a version in `static/vendor/` is replaced.
"""

import hashlib
import http.server
import json
import re
import secrets
import threading
from pathlib import Path
from typing import ClassVar

import pytest

STATIC = Path(__file__).resolve().parents[2] / "static"
VENDOR = STATIC / "vendor"

POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self'; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types htmx"
)
BASE = (STATIC.parent / "templates/base.html").read_text()
CONFIG = re.search(r"""<meta name="htmx-config" content='(.+?)'>""", BASE)[1]
PAGE = """<!doctype html><html lang="en"><head><title>{title}</title>
<meta name="htmx-config" content='{config}'>
<script src="/static/vendor/htmx-4.0.1/htmx.min.js" nonce="{nonce}"></script>
<script src="/static/vendor/htmx-4.0.1/hx-csp.min.js" nonce="{nonce}"></script></head>
<body hx-headers:inherited='{{"X-CSRFToken": "token-of-{title}"}}' hx-nonce="{nonce}">
<p id="side">side</p>
{body}
</body></html>"""
FORM = """<form id="box" hx-post="/fragment/{n}" hx-swap="outerHTML" hx-nonce="{nonce}">
<p>answer {n}</p><button>send</button></form>"""


class Site(http.server.BaseHTTPRequestHandler):
    """A few pages and fragments; every answer has its own nonce, as Django's have."""

    seen: ClassVar[list[tuple[str, str, dict[str, str]]]] = []
    pages: ClassVar[dict[str, str]] = {}

    def do_GET(self):
        self.answer("GET")

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer("POST")

    def answer(self, method):
        path = self.path.partition("?")[0]
        if path.startswith("/static/"):
            self.send(200, (STATIC / path.removeprefix("/static/")).read_text(), "text/javascript")
            return
        self.seen.append((method, path, {k.lower(): v for k, v in self.headers.items()}))
        nonce = secrets.token_urlsafe(16)
        if path == "/favicon.ico":
            self.send(204, "", "text/plain")
        elif match := re.fullmatch(r"/fragment/(\d+)", path):
            out_of_band = (
                f'<p id="side" hx-swap-oob="true">side {match[1]} '
                f'<button id="side-{match[1]}" hx-get="/fragment/{match[1]}" hx-target="#box"'
                f' hx-nonce="{nonce}"></button></p>'
            )
            form = FORM.format(n=int(match[1]) + 1, nonce=nonce)
            self.send(200, form + out_of_band, nonce=nonce)
        elif match := re.fullmatch(r"/status/(\d+)", path):
            self.send(int(match[1]), f'<p id="status">status {match[1]}</p>', nonce=nonce)
        elif path == "/signed-out":
            self.send(401, "<p id=login>sign in</p>", nonce=nonce, headers={"HX-Redirect": "/page/login"})
        elif path == "/cached":
            same = self.headers.get("If-None-Match") == '"v1"'
            body = "" if same else FORM.format(n=1, nonce=nonce)
            self.send(304 if same else 200, body, nonce=nonce, headers={"ETag": '"v1"'})
        else:
            title = path.rpartition("/")[2]
            body = self.pages[title].replace("NONCE", nonce)
            self.send(200, PAGE.format(title=title, config=CONFIG, nonce=nonce, body=body), nonce=nonce)

    def send(self, status, text, kind="text/html", nonce="", headers=None):
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Security-Policy", POLICY.format(nonce=nonce))
        if "ETag" not in (headers or {}):
            self.send_header("Cache-Control", "no-store")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def site():
    Site.seen, Site.pages = [], {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def show(chromium, site):
    """`show("body html")` opens a page that has it; `page.complaints` has the errors of its console."""
    context = chromium.new_context()

    def open_page(body, title="page"):
        Site.pages[title] = body
        page = context.new_page()
        page.complaints = []
        page.on(
            "console",
            lambda message: page.complaints.append(message.text) if message.type == "error" else None,
        )
        page.goto(f"{site}/page/{title}")
        return page

    yield open_page
    context.close()


def requests_for(path):
    return [(method, headers) for method, seen, headers in Site.seen if seen == path]


def test_vendored_files_are_those_that_were_released():
    released = json.loads((VENDOR / "released.json").read_text())
    for name, digest in released["files"].items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
    shipped = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()}
    assert shipped == {*released["files"], "released.json"}


@pytest.mark.browser
def test_a_form_that_came_in_a_fragment_works_again_and_again(show):
    page = show(FORM.format(n=1, nonce="NONCE"))
    for n in (2, 3, 4):
        page.click("#box button")
        page.wait_for_selector(f"text=answer {n}")
    assert page.complaints == []


@pytest.mark.browser
def test_the_csrf_token_of_the_body_goes_with_every_request(show):
    page = show(FORM.format(n=1, nonce="NONCE"))
    page.click("#box button")
    page.wait_for_selector("text=answer 2")
    assert requests_for("/fragment/1")[0][1]["x-csrftoken"] == "token-of-page"


@pytest.mark.browser
def test_out_of_band_parts_are_swapped_and_live(show):
    page = show(FORM.format(n=1, nonce="NONCE"))
    page.click("#box button")
    page.wait_for_selector("text=side 1")
    page.click("#side-1")
    page.wait_for_selector("#box >> text=answer 2 >> visible=true")
    page.wait_for_selector("#box #box")
    assert page.complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("status", [409, 422])
def test_a_refusal_is_shown_in_place(show, status):
    page = show(f'<button id="b" hx-post="/status/{status}" hx-target="#side" hx-nonce="NONCE">b</button>')
    page.click("#b")
    page.wait_for_selector(f"#side >> text=status {status}")


@pytest.mark.browser
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_an_error_page_never_lands_in_a_fragment(show, status):
    page = show(f'<button id="b" hx-post="/status/{status}" hx-target="#side" hx-nonce="NONCE">b</button>')
    page.evaluate(
        "document.addEventListener('htmx:finally:request', () => { document.body.dataset.told = 'yes' })"
    )
    page.click("#b")
    page.wait_for_selector("body[data-told=yes]")
    assert page.text_content("#side") == "side"


@pytest.mark.browser
def test_a_signed_out_fragment_leads_to_the_sign_in_page(show):
    Site.pages["login"] = "<p id=login-page>sign in</p>"
    page = show('<button id="b" hx-get="/signed-out" hx-target="#side" hx-nonce="NONCE">b</button>')
    page.click("#b")
    page.wait_for_selector("#login-page")


@pytest.mark.browser
def test_back_and_forward_show_the_pages_again_with_working_forms(show):
    Site.pages["two"] = '<p id="here">two</p>'
    page = show(
        '<a id="go" href="/page/two" hx-get="/page/two" hx-target="body" hx-swap="outerSync"'
        ' hx-push-url="true" hx-nonce="NONCE">go</a>' + FORM.format(n=1, nonce="NONCE")
    )
    page.click("#go")
    page.wait_for_selector("#here")
    assert page.url.endswith("/page/two")
    page.go_back()
    page.wait_for_selector("#go")
    page.click("#box button")
    page.wait_for_selector("text=answer 2")
    assert page.complaints == []


INJECTED = {
    "bare": '<div hx-post="/stolen" hx-trigger="load">x</div>',
    "data prefix": '<div data-hx-post="/stolen" hx-trigger="load">x</div>',
    "wrong nonce": '<div hx-post="/stolen" hx-trigger="load" hx-nonce="guess">x</div>',
    "empty nonce": '<div hx-post="/stolen" hx-trigger="load" hx-nonce>x</div>',
    "event handler": '<img src="/x" hx-on:error="fetch(\'/stolen\')">',
    "inline script": "<script>fetch('/stolen')</script>",
    "ignored": '<span hx-ignore><div hx-post="/stolen" hx-trigger="load">x</div></span>',
}


@pytest.mark.browser
@pytest.mark.parametrize("payload", INJECTED.values(), ids=INJECTED.keys())
@pytest.mark.parametrize("way", ["in the page", "in a fragment"])
def test_injected_markup_sends_nothing(show, payload, way):
    """The net under the escaping: even where a template forgot it, nothing is sent."""
    if way == "in the page":
        page = show(payload + FORM.format(n=1, nonce="NONCE"))
    else:
        page = show(FORM.format(n=1, nonce="NONCE"))
        page.evaluate(
            "text => htmx.swap({text, target: '#side', sourceElement: document.body, swap: 'innerHTML'})",
            payload,
        )
    page.click("#box button")
    page.wait_for_selector("text=answer 2")  # a request that came later has been answered
    assert requests_for("/stolen") == []


@pytest.mark.browser
@pytest.mark.parametrize(
    "attribute",
    ["hx-vals=\"js:{a: fetch('/stolen')}\"", "hx-trigger=\"click[fetch('/stolen')]\""],
    ids=["js value", "trigger filter"],
)
def test_no_attribute_runs_code_even_with_the_right_nonce(show, attribute):
    page = show(
        f'<button id="b" hx-get="/status/200" hx-nonce="NONCE" {attribute}>b</button>'
        + FORM.format(n=1, nonce="NONCE")
    )
    page.click("#b")
    page.click("#box button")
    page.wait_for_selector("text=answer 2")
    assert requests_for("/stolen") == []


@pytest.mark.browser
def test_an_answer_that_carries_the_nonce_of_the_page_is_not_trusted(show):
    """The server never knows the nonce of an older page: who sends it back has stolen it."""
    page = show(FORM.format(n=1, nonce="NONCE"))
    nonce = page.evaluate("document.querySelector('script[nonce]').nonce")
    Site.pages["stolen-nonce"] = (
        f'<div hx-post="/stolen" hx-trigger="load" hx-nonce="{nonce}">x</div><p id="last">x</p>'
    )
    page.evaluate("htmx.ajax('GET', '/page/stolen-nonce', {target: '#side', select: '#last, div'})")
    page.wait_for_selector("#last")
    page.click("#box button")
    page.wait_for_selector("text=answer 2")
    assert requests_for("/stolen") == []


@pytest.mark.browser
def test_not_modified_leaves_the_page_alone_when_the_request_names_the_version_itself(show):
    page = show(FORM.format(n=1, nonce="NONCE"))
    page.evaluate("htmx.ajax('GET', '/cached', {target: '#side', headers: {'If-None-Match': '\"v1\"'}})")
    page.wait_for_load_state("networkidle")
    assert page.text_content("#side") == "side"
    assert requests_for("/cached")[0][1]["if-none-match"] == '"v1"'
