"""The set-up of the whole suite: real PostgreSQL and Redis, and a Chromium where there is one."""

import os
import shutil
import tempfile
import threading
from pathlib import Path

import hypothesis
import pytest
from django.conf import settings

from runbook.environment import given_stores
from runbook.stores import Stores
from simulator.hall import Hall
from simulator.service import Service

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# How fast the machine is decides nothing: no deadlines, and no complaint that examples come slowly.
hypothesis.settings.register_profile(
    "runbook",
    parent=hypothesis.settings.get_profile("ci" if os.environ.get("CI") else "default"),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("runbook")

_folder = pytest.StashKey[Path]()
_stores = pytest.StashKey[Stores]()
_left_out = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Starts the stores and fills in the environment, before pytest-django reads the settings."""
    folder = Path(tempfile.mkdtemp(prefix="runbook-tests-"))
    folder.chmod(0o711)  # PostgreSQL may run under another account and must pass
    config.stash[_folder] = folder
    (folder / "static").mkdir()
    os.environ.update(
        DJANGO_SETTINGS_MODULE="runbook.settings",
        SECRET_KEY="of-the-tests-" + "0" * 40,
        RUNBOOK_HTTPS="off",
        EVIDENCE_FOLDER=str(folder / "evidence"),
        STATIC_FOLDER=str(folder / "static"),
    )
    if not given_stores(os.environ):
        config.stash[_stores] = Stores(folder / "stores")
        os.environ.update(config.stash[_stores].start().environment())
    # pytest-django sets Django up in its own, later pytest_configure, but only where the settings are read already.
    _ = settings.DATABASES


def pytest_unconfigure(config):
    if stores := config.stash.get(_stores, None):
        stores.stop()
    if folder := config.stash.get(_folder, None):
        shutil.rmtree(folder, ignore_errors=True)


def find_chromium() -> str | None:
    """The program that CHROMIUM names, else the first known name on the PATH; None without one."""
    names = (os.environ["CHROMIUM"],) if os.environ.get("CHROMIUM") else CHROMIUM_NAMES
    return next((found for name in names if (found := shutil.which(name))), None)


def pytest_collection_modifyitems(config, items):
    """Without a Chromium the browser tests are taken out; the end of the run says so, or fails for it."""
    browser = [item for item in items if item.get_closest_marker("browser")]
    if browser and find_chromium() is None:
        config.stash[_left_out] = len(browser)
        items[:] = [item for item in items if item not in set(browser)]
        config.hook.pytest_deselected(items=browser)


def pytest_sessionfinish(session):
    if session.config.stash.get(_left_out, 0) and os.environ.get("RUNBOOK_REQUIRE_BROWSER") == "1":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    left_out = config.stash.get(_left_out, 0)
    if not left_out:
        return
    required = os.environ.get("RUNBOOK_REQUIRE_BROWSER") == "1"
    colour = {"red": True} if required else {"yellow": True}
    terminalreporter.section("BROWSER TESTS LEFT OUT", sep="!", bold=True, **colour)
    named = os.environ.get("CHROMIUM")
    why = f"CHROMIUM names no program: {named}." if named else "no Chromium was found on the PATH."
    terminalreporter.write_line(
        f"{left_out} browser tests did NOT run: {why} Install one (Debian: chromium) or set CHROMIUM to it."
        + (" They are required here, so this run has failed." if required else ""),
        **colour,
    )


@pytest.fixture(scope="module")
def chromium():
    """One real Chromium for the module, driven by Playwright: `chromium.new_page()`.

    Not for the whole session: while Playwright runs, no other loop can in the thread of the tests.
    """
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright's loop runs in the thread of the tests, and Django takes that for a query in a coroutine.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def simulator(tmp_path, settings):
    """A simulator of its own whose worlds have no agents; what is done to their servers shows in its answers."""
    hall = Hall(tmp_path, agent_command=())
    hall.open()
    service = Service(("127.0.0.1", 0), hall)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    settings.SIMULATOR_URL = service.url
    yield service
    service.shutdown()
    service.server_close()
    thread.join()
    hall.close()


@pytest.fixture
def evidence_folder(settings, tmp_path):
    """The folder of attached files, empty and of this test alone."""
    from django.core.files.storage import storages

    settings.EVIDENCE_FOLDER = tmp_path / "evidence"
    location = {"location": settings.EVIDENCE_FOLDER}
    settings.STORAGES = settings.STORAGES | {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": location}
    }
    yield settings.EVIDENCE_FOLDER
    storages._storages.clear()  # type: ignore[attr-defined]
