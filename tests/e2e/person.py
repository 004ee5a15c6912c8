"""A person in a browser, who does what the page of a run says and nothing else."""

import re
from contextlib import suppress

from playwright.sync_api import TimeoutError as Late

PASSWORD = "quiet-night-in-frankfurt"
WAIT = 60_000  # milliseconds that a page may take to show what must come


class Person:
    """Signed in as `name`. `complaints` collects what the browser's console says."""

    def __init__(self, chromium, url, name, **context):
        self.url = url
        self.context = chromium.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.complaints = []
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{url}/sign-in/")
        self.page.fill("[name=username]", name)
        self.page.fill("[name=password]", PASSWORD)
        self.page.press("[name=password]", "Enter")
        self.page.wait_for_url(lambda address: "/sign-in/" not in address)

    def _listen(self, message):
        # A refusal is an answer, which the page shows; the browser's console calls every 409 an error.
        if message.type == "error" and "status of 409" not in message.text:
            self.complaints.append(message.text)

    def close(self):
        self.context.close()

    # What the page shows.

    def sees(self, selector):
        return self.page.locator(selector).count() > 0

    @property
    def step(self):
        """The id of the current step; empty when there is none any more."""
        found = self.page.locator("section.step[id^=step-]")
        with suppress(Late):
            return found.first.get_attribute("id", timeout=1_000).removeprefix("step-")
        return ""

    def text(self):
        return self.page.locator("#board").inner_text()

    # What a person does.

    def begin_course(self, course):
        """Have the simulated servers begin anew, in the named course."""
        self.page.goto(f"{self.url}/environments/")
        self.page.get_by_role("link", name="Production · Frankfurt").first.click()
        self.page.locator("#simulated-renew summary").click()
        self.page.select_option("#renew-scenario", course)
        self.page.click("#renew-form button")
        self.page.locator("#simulated .chip.play", has_text=course).wait_for()

    def start_run(self, *, database_upgraded=False):
        """Start a live run of the HA procedure through the start dialog; gives the run's address."""
        self.page.goto(f"{self.url}/environments/")
        self.page.get_by_role("link", name="Production · Frankfurt").first.click()
        self.page.wait_for_url(re.compile(r"/environments/\d+/$"))
        self.page.goto(self.page.url + "start/config-server-ha/")
        self.page.check("input[name=kind][value=live]")
        answer = "true" if database_upgraded else "false"
        self.page.check(f"input[name=parameter-database-upgraded][value={answer}]")
        if database_upgraded:
            self.page.fill("[name=parameter-keep-database-until]", "2030-12-31")
        self.page.get_by_role("button", name="Start the run").click()
        self.page.wait_for_url(re.compile(r"/runs/\d+/$"))
        return self.page.url

    def click(self, selector):
        """Click what can be clicked now; True when something was."""
        button = self.page.locator(f"{selector}:visible:enabled")
        if not button.count():
            return False
        with suppress(Late):  # the page may have moved on in between: then there is nothing to click any more
            button.first.click(timeout=3_000)
            return True
        return False

    def send(self, form, **values):
        """Fill in and send the first form whose id begins so; True when there was one."""
        found = self.page.locator(f"form[id^={form}]:visible")
        if not found.count():
            return False
        key = found.first.get_attribute("id")
        with suppress(Late):
            for name, value in values.items():
                control = self.page.locator(f"#{key} [name={name}]")
                if control.first.get_attribute("type") == "radio":
                    self.page.check(f"#{key} [name={name}][value={value}]", timeout=3_000)
                else:
                    control.first.fill(value, timeout=3_000)
            self.page.locator(f"#{key} button").first.click(timeout=3_000)
            self._settled(key)
            return True
        return False

    def _settled(self, key):
        """The form is gone, or locked, once its act is answered."""
        with suppress(Late):
            self.page.locator(f"#{key}").wait_for(state="hidden", timeout=5_000)
