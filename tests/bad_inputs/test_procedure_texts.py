"""Texts of procedures that must do no harm (rows Y). Most are proved where texts are read; here is the rest."""

import pytest

from tests.procedures.test_loader import changed, mistakes_of


@pytest.mark.bad_input("Y15")
@pytest.mark.parametrize("key", ["pattern", "regex", "match", "text-like"])
@pytest.mark.parametrize("pattern", ["(a+)+$", "(?=x)", r"(a)\\1", "a{1001}", "", ".*", "("])
def test_a_rule_has_no_patterns_to_get_wrong(key, pattern):
    """Rules name events by number and nothing else: no pattern of an author is ever carried out."""
    text = changed(
        'events: ["21-22911", "21-22902"]', f'{key}: "{pattern}", events: ["21-22911", "21-22902"]'
    )
    told = [one.message for one in mistakes_of(text)]

    assert any(f"`{key}`" in message for message in told), told


@pytest.mark.bad_input("Y22")
@pytest.mark.parametrize(
    "line", ["include: other.yaml", "extends-file: /etc/passwd", "imports: [x]", "env: HOME"]
)
def test_no_other_file_and_no_variable_is_read(line):
    told = [
        one.message for one in mistakes_of(changed("title: A small one\n", f"title: A small one\n{line}\n"))
    ]

    assert any(f"`{line.split(':')[0]}`" in message for message in told), told


@pytest.mark.bad_input("Y18")
@pytest.mark.parametrize(
    "text",
    [
        "<img src=https://192.0.2.1/x onerror=alert(1)>",
        "[here](javascript:alert(1))",
        "![x](data:text/html,<script>alert(1)</script>)",
        "https://10.1.2.3@evil.example/",
    ],
)
def test_a_text_is_shown_as_it_is_written_and_leads_nowhere(text):
    from django.template import Context, Template

    html = Template("{% load foreign %}{{ text|foreign }}").render(Context({"text": text}))

    assert "<img" not in html
    assert "<a" not in html
    assert "<script" not in html
    assert html.startswith('<bdi class="foreign" translate="no" hx-ignore>')
