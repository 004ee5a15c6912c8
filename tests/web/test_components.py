"""The pages' parts, rendered from the real templates and looked at in a real Chromium under the real policy."""

import re
import secrets
from itertools import product
from pathlib import Path

import pytest
from django.template import Context, Template

from tests.web import gallery
from upgrades.templatetags.foreign import foreign, foreign_lines

CSS = (Path(__file__).resolve().parents[2] / "static/runbook/runbook.css").read_text()
TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self'; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types htmx"
)
STATIC = Path(__file__).resolve().parents[2] / "static"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@pytest.fixture
def look(chromium):
    """`look(width=390, scheme="dark")` opens the gallery; `page.complaints` has what the console said."""
    contexts = []

    def answer(route):
        path = route.request.url.removeprefix("http://gallery.test").partition("?")[0]
        if path.startswith("/static/"):
            file = STATIC / path.removeprefix("/static/")
            route.fulfill(body=file.read_bytes(), content_type=KINDS[file.suffix])
            return
        nonce = secrets.token_urlsafe(16)
        headers = {"Content-Security-Policy": POLICY.format(nonce=nonce)}
        html = gallery.render(nonce, rehearsal=path == "/rehearsal")
        route.fulfill(body=html, content_type="text/html; charset=utf-8", headers=headers)

    def open_gallery(path="/gallery", *, width=1440, scheme="light"):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        contexts[-1].route("http://gallery.test/**", answer)
        page = contexts[-1].new_page()
        page.complaints = []
        page.on("console", lambda said: page.complaints.append(said.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto("http://gallery.test" + path)
        return page

    yield open_gallery
    for context in contexts:
        context.close()


def colour(name, scheme):
    pair = re.search(rf"--{name}: light-dark\((#\w{{6}}), (#\w{{6}})\)", CSS)
    return pair[1 if scheme == "light" else 2]


def brightness(hex_colour):
    channels = [int(hex_colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((brightness(one), brightness(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


TINTED = [(tone, f"{tone}-bg") for tone in ("go", "wait", "stop", "act", "play")]
TEXTS = [
    *product(("ink", "ink-soft", "ink-faint", "go", "wait", "stop", "act", "play"), ("card", "paper")),
    *TINTED,
    *product(("ink", "ink-soft"), ("go-bg", "wait-bg", "stop-bg", "act-bg", "play-bg", "line")),
    ("ink-faint", "go-bg"),
    ("ink-faint", "act-bg"),
    ("on-act", "act"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXTS)
def test_every_text_colour_can_be_read_on_its_ground(text, ground, scheme):
    assert contrast(colour(text, scheme), colour(ground, scheme)) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("mark", "ground"), [("edge", "card"), ("edge", "paper"), ("act", "paper"), ("go", "card")]
)
def test_outlines_of_controls_and_focus_can_be_seen(mark, ground, scheme):
    assert contrast(colour(mark, scheme), colour(ground, scheme)) >= 3


def test_no_template_has_styles_or_handlers_inside():
    forbidden = re.compile(
        r"<style|\sstyle=|\son[a-z]+=|hx-on|\bjs:|javascript:|\|safe\b|urlize", re.IGNORECASE
    )
    found = {file: forbidden.findall(file.read_text()) for file in TEMPLATES.rglob("*.html")}
    # The report is a file that is read without us, so it brings its one style sheet along; it is never served as a page.
    report = TEMPLATES / "upgrades" / "audit" / "report.html"
    assert found.pop(report) == ["<style"]
    assert {str(file): hits for file, hits in found.items() if hits} == {}


def test_every_element_that_acts_through_htmx_has_its_nonce():
    element = re.compile(
        r"<[a-z][^<>]*\shx-(?:get|post|put|patch|delete)=(?:[^<>]|<[^a-z/])*>", re.IGNORECASE
    )
    without = [
        (str(file), tag)
        for file in TEMPLATES.rglob("*.html")
        for tag in element.findall(re.sub(r"{%\s*url[^%]*%}", "url", file.read_text()))
        if "hx_nonce" not in tag
    ]
    assert without == []


@pytest.mark.browser
@pytest.mark.parametrize("path", ["/gallery", "/rehearsal"])
def test_the_page_breaks_no_rule_of_the_policy(look, path):
    page = look(path)
    page.wait_for_selector("html[data-link]")
    assert page.complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 820, 1180, 1440])
def test_nothing_sticks_out_sideways(look, width):
    page = look(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 390, 820])
def test_every_section_is_in_sight_on_a_phone_without_pushing(look, width):
    page = look(width=width)
    frame, *boxes = page.evaluate(
        "[document.querySelector('.bar nav'), ...document.querySelectorAll('.bar nav a')]"
        ".map(one => one.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == 5
    for box in boxes:
        assert frame["left"] <= box["left"] < box["right"] <= frame["right"] + 0.5


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
def test_whatever_can_be_pressed_is_large_enough(look, width):
    """WCAG 2.2, 2.5.8: 24 pixels, but for links within a sentence."""
    small = look(width=width).evaluate(
        """[...document.querySelectorAll('a, button, summary, input, select, textarea')]
        .filter(e => !e.closest('p, td, li > span, .unseen, .skip') && e.checkVisibility() && e.type !== 'hidden')
        .map(e => [e, (e.closest('label') ?? e).getBoundingClientRect()])
        .filter(([, box]) => box.height && (box.height < 24 || box.width < 24)).map(([e]) => e.outerHTML)"""
    )
    assert small == []


@pytest.mark.browser
def test_every_control_has_a_name_and_every_id_is_unique(look):
    page = look()
    assert (
        page.evaluate(
            """[...document.querySelectorAll('main input, main select, main textarea, progress')]
        .filter(e => e.type !== 'hidden' && !e.labels.length && !e.ariaLabel).map(e => e.outerHTML)"""
        )
        == []
    )
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.browser
def test_the_first_tab_offers_to_skip_the_header(look):
    page = look()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"


@pytest.mark.browser
def test_a_rehearsal_shows_itself_on_the_page_and_in_its_title(look):
    page = look("/rehearsal")
    assert page.title().startswith("Rehearsal: ")
    assert page.is_visible(".rehearsal-note")
    assert page.evaluate("getComputedStyle(document.body, '::after').borderTopWidth") == "5px"


@pytest.mark.browser
def test_times_are_shown_in_the_readers_zone_with_utc_beside(look):
    time = look().locator("td time").first
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC", time.get_attribute("title"))


@pytest.mark.browser
def test_an_exposure_beyond_its_maximum_turns_red(look):
    page = look()
    assert page.locator(".exposure:has(.over) > span").all_text_contents() == ["◑ Master not redundant"]


def test_a_page_without_a_user_offers_to_sign_in_and_shows_no_navigation():
    page = gallery.render("nonce", signed_in=False)
    assert "Sign in" in page
    assert "/approvals/" not in page


NASTY = {
    "markup": ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
    "quotes": ("\" ' &", "&quot; &#x27; &amp;"),
    "escape sequence": ("a\x1b]8;;http://evil\x07b", "a␛]8;;http://evil␇b"),
    "direction": ("exe.\u202egnp", "exe.⟦U+202E⟧gnp"),
    "no width": ("ad\u200bmin", "ad⟦U+200B⟧min"),
    "C1": ("a\x9bb", "a⟦U+009B⟧b"),
    "zero": ("a\0b", "a␀b"),
    "surrogate": ("a\ud800b", "a⟦U+D800⟧b"),
    "line end": ("a\nb", "a␊b"),
}


@pytest.mark.parametrize(("text", "shown"), NASTY.values(), ids=NASTY.keys())
def test_foreign_text_is_escaped_and_what_hides_is_shown(text, shown):
    assert foreign(text) == f'<bdi class="foreign" translate="no" hx-ignore>{shown}</bdi>'


def test_foreign_text_too_long_is_cut_with_a_mark():
    assert "abc… (7 more characters)" in foreign("abcdefghij", 3)


def test_lines_of_a_note_stay_lines():
    assert (
        foreign_lines("a\r\nb\n\x1b[1mc") == '<pre class="foreign" translate="no" hx-ignore>a\nb\n␛[1mc</pre>'
    )


def test_no_text_is_no_text():
    assert foreign(None) == foreign_lines(None) == ""


def test_outside_a_request_the_nonce_is_empty_and_the_element_stays_inert():
    assert Template("{% load foreign %}<b {% hx_nonce %}>").render(Context()) == '<b hx-nonce="">'
