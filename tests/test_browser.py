"""The browser tests run in a real Chromium, and nobody overlooks it when they do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Error

ROOT = Path(__file__).parent.parent


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_chromium_shows_a_page_and_runs_no_inline_script(chromium, live_server):
    page = chromium.new_page()
    try:
        assert page.goto(f"{live_server.url}/healthz").ok
        assert page.inner_text("body").strip() == "ok"
        with pytest.raises(Error, match="requires 'TrustedScript'"):
            page.evaluate("document.body.setAttribute('onclick', 'ran = 1')")
        assert page.evaluate("typeof ran") == "undefined"
    finally:
        page.close()


@pytest.mark.processes
@pytest.mark.parametrize(("required", "code"), [("0", 0), ("1", 1)])
def test_without_a_chromium_the_run_says_so_and_fails_where_it_is_required(required, code):
    here = "tests/test_browser.py::test_chromium_shows_a_page_and_runs_no_inline_script"
    beside = "tests/test_health.py::test_healthz_answers_without_any_store"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", here, beside],
        env={**os.environ, "CHROMIUM": "/no/chromium", "RUNBOOK_REQUIRE_BROWSER": required},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert "BROWSER TESTS LEFT OUT" in done.stdout
    assert "1 browser tests did NOT run: CHROMIUM names no program: /no/chromium." in done.stdout
    assert ("so this run has failed" in done.stdout) == bool(code)
