"""What the pages under docs/ name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")
LINKED = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page):
    for file, test in NAMED.findall(page.read_text("utf-8")):
        assert (ROOT / file).is_file(), file
        assert not test or re.search(
            rf"^ *(async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE
        ), test


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    for target in LINKED.findall(page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
