"""The wire format between agent and server: names, limits, signatures, strict JSON. Used by both sides.

A question is signed over version, agent id, method, path, sorted query, hash of the body, the server's time and a
nonce; an answer over that nonce, status, agent id, boot id, the agent's time and the hash of the body. So an answer
cannot be made by someone else, replayed later, or taken from another agent. The key of an agent never travels; each
direction uses a key of its own that is derived from it, bound to the agent's id.
"""

import hashlib
import hmac
import json
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl, quote, urlencode

VERSION = 1  # of this format; it changes whenever a field is added, removed or means something else

DATA_LIMIT = 512 * 1024  # raw log bytes in one answer
BODY_LIMIT = 1024 * 1024  # bytes of one answer's body
LINE_LIMIT = 64 * 1024  # bytes of one line that travel; the rest of it is covered by a cut
QUERY_LIMIT = 60 * 1024  # characters of a question's path and query
FORM_LIMIT = 1024 * 1024  # bytes of a body that carries a query, where that is too long for a line
CURSORS_LIMIT = 5000  # files that a question names
WAIT_LIMIT = 25.0  # seconds a poll may wait for news
CLOCK_WINDOW = 300.0  # seconds that the two clocks may differ
DEPTH_LIMIT = 20  # levels of nesting in a body
MARK_LENGTH = 256  # bytes before an offset that its mark covers

VERSION_HEADER = "Runbook-Version"
AGENT_HEADER = "Runbook-Agent"
KEY_HEADER = "Runbook-Key"
TIME_HEADER = "Runbook-Time"
NONCE_HEADER = "Runbook-Nonce"
BOOT_HEADER = "Runbook-Boot"
SIGNATURE_HEADER = "Runbook-Signature"
CONTENT_HEADER = (
    "Runbook-Content"  # hash of the body; with it the signature can be judged before the body is read
)

SECRET = re.compile(r"[0-9a-f]{64}\Z")
NONCE = re.compile(r"[0-9a-f]{32}\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")
BOOT = re.compile(r"[0-9a-f]{16}\Z")
FOLDER_KEY = re.compile(r"[a-z0-9-]{1,40}\Z")
# device, inode (volume and file index on Windows), first 16 digits of the SHA-256 of the first line with its end
IDENTITY = re.compile(r"[0-9a-f]{1,32}-[0-9a-f]{1,32}-[0-9a-f]{16}\Z")
MARK = re.compile(r"[0-9a-f]{16}\Z")
TIME = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?\Z", re.ASCII)

PROCESS_STATES = ("up", "down", "unknown")
FILE_STATES = ("open", "shrunk", "gone")
PROBES = ("process", "folder", "names", "hash")

_CURSOR = re.compile(
    r"(?P<application>.+):(?P<file>[0-9a-f]{1,32}-[0-9a-f]{1,32}-[0-9a-f]{16})"
    r":(?P<offset>[0-9]{1,18})(?::(?P<mark>[0-9a-f]{16}))?\Z",
    re.ASCII | re.DOTALL,
)
# A text without its end is one match as well: tried anew from each mark in it, it would cost the square of its length.
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
EMPTY_BODY = hashlib.sha256(b"").hexdigest()

Pairs = List[Tuple[str, str]]


class Nonsense(ValueError):
    """A message that does not follow this format; the text says what is wrong with it."""


# -- keys and signatures --------------------------------------------------------------------------------------------


def _key(secret: str, agent: str, direction: bytes) -> bytes:
    """HKDF-SHA-256 (RFC 5869, one block): the key for one direction, bound to the agent's id."""
    if not SECRET.match(secret):
        raise ValueError("A secret is 64 hexadecimal digits in lower case.")
    extracted = hmac.new(b"runbook agent v1", bytes.fromhex(secret), hashlib.sha256).digest()
    info = direction + b"\x00" + agent.encode("utf-8")
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def _sign(key: bytes, fields: List[str]) -> str:
    # A JSON list keeps the fields apart whatever they contain.
    text = json.dumps(fields, ensure_ascii=True, separators=(",", ":"))
    return hmac.new(key, text.encode("ascii"), hashlib.sha256).hexdigest()


def canonical_query(pairs: Iterable[Tuple[str, str]]) -> str:
    """The query in its one spelling: sorted, percent-encoded. It is both what is sent and what is signed."""
    return urlencode(sorted(pairs), quote_via=quote, safe=":")


def read_query(text: str) -> Pairs:
    """Name and value pairs of a query, in the order sent; Nonsense if it is not well formed."""
    if not text:
        return []
    try:
        return parse_qsl(text, keep_blank_values=True, strict_parsing=True, encoding="utf-8", errors="strict")
    except ValueError:
        raise Nonsense("the query is not well formed") from None


def request_signature(
    secret: str,
    agent: str,
    method: str,
    path: str,
    query: str,
    time: str,
    nonce: str,
    content: str = EMPTY_BODY,
) -> str:
    """Signature of a question; `query` is canonical, `content` the SHA-256 of its body."""
    fields = [str(VERSION), agent, method, path, query, content, time, nonce]
    return _sign(_key(secret, agent, b"request"), fields)


def reply_signature(
    secret: str, agent: str, nonce: str, status: int, boot: str, time: str, body: bytes
) -> str:
    """Signature of an answer to the question that carried `nonce`."""
    fields = [str(VERSION), nonce, str(status), agent, boot, time, hashlib.sha256(body).hexdigest()]
    return _sign(_key(secret, agent, b"reply"), fields)


def same(one: str, other: str) -> bool:
    """Whether two signatures are equal, in a time that tells nothing about them."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def request_headers(
    secret: str, agent: str, key_id: str, path: str, query: str, time: float, nonce: str, body: bytes = b""
) -> Dict[str, str]:
    """The headers of a signed GET, or of a POST if there is a body, which then holds the query.

    `time` in seconds since 1970, `nonce` 32 hexadecimal digits used once.
    """
    stamp, method, content = "%d" % time, "POST" if body else "GET", hashlib.sha256(body).hexdigest()
    signature = request_signature(secret, agent, method, path, query, stamp, nonce, content)
    headers = {
        VERSION_HEADER: str(VERSION),
        AGENT_HEADER: agent,
        KEY_HEADER: key_id,
        TIME_HEADER: stamp,
        NONCE_HEADER: nonce,
        SIGNATURE_HEADER: signature,
    }
    return {**headers, CONTENT_HEADER: content} if body else headers


def reply_headers(
    secret: str, agent: str, key_id: str, nonce: str, status: int, boot: str, time: float, body: bytes
) -> Dict[str, str]:
    """The headers of a signed answer."""
    stamp = "%.3f" % time
    return {
        VERSION_HEADER: str(VERSION),
        AGENT_HEADER: agent,
        KEY_HEADER: key_id,
        BOOT_HEADER: boot,
        TIME_HEADER: stamp,
        SIGNATURE_HEADER: reply_signature(secret, agent, nonce, status, boot, stamp, body),
    }


def is_signed_reply(
    headers: Mapping[str, str], *, secret: str, agent: str, nonce: str, status: int, body: bytes
) -> bool:
    """Whether the answer was made by this agent, for the question with this nonce, exactly so."""
    boot, time = headers.get(BOOT_HEADER, ""), headers.get(TIME_HEADER, "")
    if headers.get(AGENT_HEADER) != agent or not BOOT.match(boot) or not TIME.match(time):
        return False
    expected = reply_signature(secret, agent, nonce, status, boot, time, body)
    return same(expected, headers.get(SIGNATURE_HEADER, ""))


# -- cursors --------------------------------------------------------------------------------------------------------


class Cursor(NamedTuple):
    """How far one file was read. `mark`, if not empty, proves that the bytes before the offset are the same still."""

    application: str
    file: str
    offset: int
    mark: str = ""

    def text(self) -> str:
        parts = [self.application, self.file, str(self.offset)]
        return ":".join(parts + [self.mark] if self.mark else parts)


def read_cursor(text: str) -> Cursor:
    """The cursor APPLICATION:IDENTITY:OFFSET[:MARK]; Nonsense for anything else, above all for a path."""
    match = _CURSOR.match(text)
    if not match:
        raise Nonsense("a cursor is APPLICATION:IDENTITY:OFFSET or APPLICATION:IDENTITY:OFFSET:MARK")
    return Cursor(
        match.group("application"), match.group("file"), int(match.group("offset")), match.group("mark") or ""
    )


def read_process(text: str) -> Tuple[str, str]:
    """Application and state from APPLICATION:STATE; Nonsense for anything else."""
    application, _, state = text.rpartition(":")
    if not application or state not in PROCESS_STATES:
        raise Nonsense("a process is APPLICATION:STATE with up, down or unknown as its state")
    return application, state


def mark_of(data: bytes) -> str:
    """The mark of an offset, from the last bytes (at most MARK_LENGTH count) that stand before it."""
    return hashlib.sha256(data[-MARK_LENGTH:]).hexdigest()[:16] if data else ""


def first_line_of(identity: str) -> str:
    """The part of an identity that depends on the first line alone: equal for a file and a copy of it."""
    return identity.rpartition("-")[2]


# -- strict JSON ----------------------------------------------------------------------------------------------------


def write_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def read_json(body: bytes, limit: Optional[int] = BODY_LIMIT) -> Any:
    """The value of a JSON text; Nonsense if it is too long or deep, has a key twice, NaN, or a number out of range."""
    if limit is not None and len(body) > limit:
        raise Nonsense("it is longer than %d bytes" % limit)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Nonsense("it is not UTF-8") from None
    _refuse_depth(text)
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except Nonsense:
        raise
    except json.JSONDecodeError as error:
        raise Nonsense("it is not JSON (line %d)" % error.lineno) from None


def _refuse_depth(text: str) -> None:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        sign = text[match.start()]
        if sign in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                raise Nonsense("it is nested deeper than %d levels" % DEPTH_LIMIT)
        elif sign in "]}":
            depth -= 1


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Nonsense("it has an object with the same key twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise Nonsense("it contains %s, which is no number" % name)


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise Nonsense("it contains an integer beyond 64 bits")
    return int(text)


def _number(text: str) -> float:
    if len(text) > 40:
        raise Nonsense("it contains a number of more than 40 characters")
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Nonsense("it contains a number out of range")
    return value
