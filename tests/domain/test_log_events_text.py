"""Texts of log lines on pages: nothing hidden in them, and no secrets."""

import pytest

from upgrades.domain.log_events import HIDDEN, mask_secrets, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb ü 漢", "a\tb ü 漢"),
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("\x1b]8;;http://x\x1b\\link", "␛]8;;http://x␛\\link"),
        ("a\0b\x7f", "a␀b␡"),
        ("a\r\nb", "a␍␊b"),
        ("\x85\x9b", "⟦U+0085⟧⟦U+009B⟧"),
        ("22\u202e071", "22⟦U+202E⟧071"),
        ("2\u200b2\ufeff", "2⟦U+200B⟧2⟦U+FEFF⟧"),
        ("\u2066x\u2069\u2028", "⟦U+2066⟧x⟦U+2069⟧⟦U+2028⟧"),
        ("\ud800\uffff\U0001fffe\U000e0041", "⟦U+D800⟧⟦U+FFFF⟧⟦U+1FFFE⟧⟦U+E0041⟧"),
    ],
)
@pytest.mark.bad_input("L06", "L07")
def test_characters_that_show_nothing_are_marked(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("login password=hunter2 ok", "hunter2"),
        ("Password: 'my long secret', user x", "my long secret"),
        ('{"password": "hun ter"}', "hun ter"),
        ("user [x], password [hunter2], type", "hunter2"),
        ("db_password = hunter2", "hunter2"),
        ("  attr: SATRCFG_PASSWORD          value:   hunter2", "hunter2"),
        ("   key: password                type:    [String], value : hunter two", "hunter two"),
        ("the token is abc4def", "abc4def"),
        ("license_key=ABC", "ABC"),
        ("licence 4F7KQ-9XJ2M-PL3RT-77VWX ends", "4F7KQ-9XJ2M-PL3RT-77VWX"),
        ('INCREMENT x SIGN="00A1 BB22"', "00A1 BB22"),
        ("card 4111 1111 1111 1111 used", "4111 1111 1111"),
        ("card 4111111111111111 used", "411111111111"),
        ("card 3782-822463-10005", "3782-822463-1"),
        ('Authorization: Digest username="u", response="0a1b"', "0a1b"),
        ("to sip:user:hunter2@example.com", "hunter2"),
        ("ldap://user:hunter2@example.com", "hunter2"),
    ],
)
@pytest.mark.bad_input("L23")
def test_secrets_are_hidden(line, secret):
    masked = mask_secrets(line)
    assert secret not in masked
    assert HIDDEN in masked


@pytest.mark.parametrize(
    "line",
    [
        "Message MSGCFG_OBJECTCHANGED2 (0x2aabe1a7f370) sent to 31 (ConfigurationServer 'proxy_b')",
        "name [x], DBID: [3184] is changed at server",
        "Transaction [D56561818]: created [origin:Sip_P@Switch_A device:1016241 resource:]",
        "Reason : Authentication failed, user name or password is incorrect",
        "Connection: ldap://localhost:389 (0xd50:1:0)",
        "id 4111111111111112 and 2026-03-01T22:00:00.000 and 1234-5678",
        "address [192.0.2.58:59643]",
    ],
)
def test_ordinary_lines_stay_as_they_are(line):
    assert mask_secrets(line) == line


@pytest.mark.parametrize(
    "part", ["password ", "a", "4111 ", "ABCD-", "key: password ", "sip:", " ", "=", "4", "value:"]
)
def test_a_megabyte_is_masked_without_a_hang(part):
    mask_secrets(part * (1_000_000 // len(part)))
