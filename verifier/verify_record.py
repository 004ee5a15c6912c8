#!/usr/bin/env python3
"""Checks an exported record of Runbook without Runbook: one file, the standard library only, Python 3.8 or later.

    python3 verify_record.py record.zip
    python3 verify_record.py record.zip --key auditors-key.txt --checkpoints kept.jsonl

It recomputes the chain of the run's events, checks the signature of the checkpoint and that the checkpoint covers these
events, and compares every file with the SHA-256 that the record has of it. The first broken record is named.

--key          the public key that you were given when it was made, in a text file. Without it the key that came with the
               bundle is used, and whoever made the bundle could have made that key, too. After a key was replaced: a line
               each, oldest first, each later one behind the number of its first checkpoint, "57 name+id+key", as in keys.txt
               of a bundle. Without that number nobody can tell whether an old key signed after its end.
--checkpoints  checkpoints that you kept: mailed files, joined or one by one, or a copy of the file that Runbook appends to.

Exit code: 0 the record is what was written; 1 it is not; 2 it could not be checked.

What no check can show: a lie at the time of writing (look at the evidence and the approvals); without a later checkpoint of
your own, a record cut off behind an earlier one, since the bundle need not hold the newest; and, without a checkpoint of your
own or a key of your own, a record that was rewritten as a whole.
"""

import argparse
import base64
import binascii
import datetime
import hashlib
import json
import os
import sys
import zipfile

GENESIS = "0" * 64
SOUND, BROKEN, NOT_CHECKED = 0, 1, 2
CLOCKS = datetime.timedelta(minutes=1)


class CannotCheck(Exception):
    """The bundle cannot be read; the text says why."""


# --- Ed25519 (RFC 8032), checking only ------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def _add(a, b):
    """The sum of two points in extended coordinates."""
    left = (a[1] - a[0]) * (b[1] - b[0]) % P
    right = (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = right - left, d - c, d + c, right + left
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(factor, point):
    result = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            result = _add(result, point)
        point, factor = _add(point, point), factor >> 1
    return result


def _same(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def _point(encoded):
    """The point of 32 bytes, or None where they are none."""
    number = int.from_bytes(encoded, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = _point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_is_right(public, message, signature):
    """Whether `signature` (64 bytes) of `message` was made with the private part of `public` (32 bytes)."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, commitment = _point(public), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or s >= ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    return _same(_times(s, BASE), _add(commitment, _times(challenge, key)))


# --- keys and checkpoints (C2SP signed note, tlog-checkpoint) -------------------------------------


class Key:
    """A public key, `name+id+base64`, and the first checkpoint that it may sign; 0 where nobody says which."""

    def __init__(self, text, first=1):
        try:
            self.name, identifier, encoded = text.strip().split("+", 2)
            raw = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise CannotCheck("“%s” is no public key in the form name+id+key." % text.strip()[:80])
        self.text, self.public, self.first = text, raw[1:], first
        self.id = hashlib.sha256(self.name.encode() + b"\n" + raw).digest()[:4]
        if raw[:1] != b"\x01" or len(self.public) != 32 or self.id.hex() != identifier:
            raise CannotCheck("“%s” is no Ed25519 key, or it was cut off." % text.strip()[:80])

    def is_named_in(self, note):
        """Whether a signature of the note says that it is this key's; `signed` tells whether that is true."""
        return any(name == self.name and identifier == self.id for name, identifier, _ in note.signatures)

    def signed(self, note):
        return any(
            name == self.name
            and identifier == self.id
            and ed25519_is_right(self.public, note.body.encode(), value)
            for name, identifier, value in note.signatures
        )


class Note:
    """A signed checkpoint: number, time, how many leaves it covers, their root, and the hash of the one before."""

    def __init__(self, text):
        self.text = text
        body, separator, tail = text.partition("\n\n")
        lines = body.split("\n")
        try:
            if not separator:
                raise ValueError("it has no signature")
            self.body = body + "\n"
            self.origin, self.size = lines[0], int(lines[1])
            self.root = base64.b64decode(lines[2], validate=True)
            rest = dict(line.split(" ", 1) for line in lines[3:])
            self.number, self.previous = int(rest["number"]), rest["previous"]
            self.at = datetime.datetime.fromisoformat(rest["time"])
            self.signatures = [_signature(line) for line in tail.splitlines()]
        except (ValueError, KeyError, IndexError, binascii.Error) as mistake:
            raise ValueError("it is not laid out as a checkpoint (%s)" % mistake)

    @property
    def hash(self):
        return hashlib.sha256(self.text.encode()).hexdigest()


def _signature(line):
    mark, name, value = line.split(" ")
    raw = base64.b64decode(value, validate=True)
    if mark != "—" or len(raw) != 68:
        raise ValueError("a signature line is damaged")
    return name, raw[:4], raw[4:]


def root_along(path, position, size, leaf):
    """The root that the hashes of `path` lead to from a leaf (RFC 9162, 2.1.3.2); None where they lead nowhere."""
    at, last = position, size - 1
    found = hashlib.sha256(b"\x00" + leaf.encode()).digest()
    for beside in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            found = hashlib.sha256(b"\x01" + beside + found).digest()
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + beside).digest()
        at, last = at >> 1, last >> 1
    return found if last == 0 else None


# --- the bundle -----------------------------------------------------------------------------------


class Bundle:
    """A zip file or the folder that it was unpacked into."""

    def __init__(self, path):
        self.path = path
        self.zip = None
        if os.path.isdir(path):
            self.names = sorted(
                os.path.relpath(os.path.join(folder, name), path).replace(os.sep, "/")
                for folder, _, files in os.walk(path)
                for name in files
            )
            return
        try:
            self.zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as trouble:
            raise CannotCheck("%s cannot be opened: %s." % (path, trouble))
        self.names = self.zip.namelist()
        if len(set(self.names)) != len(self.names):
            raise CannotCheck("%s has two files of one name: which of them was meant cannot be told." % path)

    def open(self, name):
        if name not in self.names:
            raise CannotCheck("%s is missing in the bundle." % name)
        return self.zip.open(name) if self.zip else open(os.path.join(self.path, *name.split("/")), "rb")

    def sha256(self, name):
        found = hashlib.sha256()
        try:
            with self.open(name) as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    found.update(block)
        except (OSError, zipfile.BadZipFile) as trouble:
            return "not readable (%s)" % trouble
        return found.hexdigest()

    def text(self, name):
        try:
            with self.open(name) as file:
                return file.read().decode("utf-8")
        except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as trouble:
            raise CannotCheck("%s cannot be read: %s." % (name, trouble))

    def json(self, name):
        try:
            return json.loads(self.text(name))
        except ValueError as mistake:
            raise CannotCheck("%s is no JSON: %s." % (name, mistake))


class Findings:
    """What was looked at, in the order in which it was; the first broken thing is the one that is named."""

    def __init__(self, say):
        self.broken, self.unsure, self._say = [], [], say

    def fine(self, what):
        self._say("  ok        " + what)

    def bad(self, what):
        self.broken.append(what)
        self._say("  BROKEN    " + what)

    def not_sure(self, what):
        self.unsure.append(what)
        self._say("  not sure  " + what)

    def note(self, what):
        self._say("  note      " + what)


def check(bundle, keys, kept, say):
    """All checks of one bundle. `keys` and `kept` are the auditor's own, or empty."""
    manifest = bundle.json("manifest.json")
    exported = _time(manifest.get("exported_at", ""))
    say(
        "Run %s, “%s”, in %s: exported %s by %s."
        % (
            manifest.get("run"),
            manifest.get("title"),
            manifest.get("environment"),
            shown(exported),
            manifest.get("by"),
        )
    )
    findings = Findings(say)
    hashes = check_chain(bundle, manifest.get("run"), findings)
    note, seals = read_seals(bundle, findings)
    if note is not None:
        check_signature(note, keys, kept, bundle, findings)
        check_seals(note, seals, manifest.get("run"), hashes, findings)
    if not kept:
        findings.note(
            "whether more followed event %d when this was exported only checkpoints that you kept can show"
            % len(hashes)
        )
    else:
        check_kept(kept, note, keys, bundle, manifest.get("run"), hashes, exported, findings)
    check_procedures(bundle, findings)
    check_evidence(bundle, findings)
    check_files(bundle, manifest, findings)
    return findings


def check_chain(bundle, run, findings):
    """The hash of each event by its number, as far as the chain holds."""
    texts = bundle.text("events.jsonl").split("\n")
    links = bundle.text("chain.txt").split("\n")
    if texts and texts[-1] == "":
        texts.pop()
    if links and links[-1] == "":
        links.pop()
    hashes, previous, lost = {}, GENESIS, None
    for place in range(max(len(texts), len(links))):
        seq = place + 1
        wrong = _wrong_event(texts, links, place, run, previous)
        if wrong:
            lost = "event %d: %s" % (seq, wrong)
            break
        previous = links[place].split(" ")[2]
        hashes[seq] = previous
    if lost:
        findings.bad(lost)
    elif not hashes:
        findings.bad("event 1: it is missing; the record is empty")
    else:
        findings.fine("each of the %d events is what was hashed and follows the one before" % len(hashes))
    return hashes


def _wrong_event(texts, links, place, run, previous):
    if place >= len(texts) or place >= len(links):
        return "it is missing in %s" % ("events.jsonl" if place >= len(texts) else "chain.txt")
    try:
        seq, follows, stored = links[place].split(" ")
        event = json.loads(texts[place])
        told = (event["run"], event["seq"])
    except (ValueError, KeyError, TypeError):
        return "it is damaged"
    if seq != str(place + 1):
        return "it is missing; what follows it is event %s" % seq
    if follows != previous:
        return "it does not follow the event before it"
    if hashlib.sha256(("%s\n%s" % (previous, texts[place])).encode()).hexdigest() != stored:
        return "its text is not the one that was hashed"
    if told != (run, place + 1):
        return "its text says that it is event %s of run %s" % (told[1], told[0])
    return ""


def read_seals(bundle, findings):
    """The checkpoint and what it says of this run; None without one."""
    seals = bundle.json("seals.json")
    if not seals.get("note"):
        findings.not_sure(
            "no checkpoint has been signed since the run began: nothing outside the database confirms it"
        )
        return None, []
    try:
        return Note(seals["note"]), seals["leaves"]
    except (ValueError, KeyError) as mistake:
        findings.bad("checkpoint: %s" % mistake)
        return None, []


def _keys_of(bundle):
    """The keys that came with the bundle: a line each, first checkpoint and key."""
    lines = [line.split(" ", 1) for line in bundle.text("keys.txt").splitlines() if line.strip()]
    try:
        return [Key(text, int(first)) for first, text in lines]
    except ValueError:
        raise CannotCheck("keys.txt is damaged.")


def check_signature(note, own, kept, bundle, findings):
    name = "checkpoint %d of %s" % (note.number, shown(note.at))
    wrong = signature_mistake(note, own or _keys_of(bundle))
    if wrong:
        findings.bad("%s: %s" % (name, wrong))
    elif _may_have_ended(note, own) and not any(text == note.text for text, _ in kept):
        _judge_by_bundle(name, note, bundle, findings)
    elif own:
        findings.fine("%s is signed by your key" % name)
    else:
        findings.fine("%s is signed by the key that came with the bundle" % name)
        for key in _keys_of(bundle)[-1:]:
            findings.note(
                "compare that key with the one that you were given: %s, id %s" % (key.name, key.id.hex())
            )


def signature_mistake(note, keys):
    """Why the note is not signed as it must be; empty when it is. Each key ends where the next one begins, as far as that
    is known."""
    begun = [key for key in keys if key.first <= note.number]
    if all(key.first for key in keys):
        begun = begun[-1:]
    if any(key.signed(note) for key in begun):
        return ""
    if any(key.signed(note) for key in keys):
        return "it is signed by a key that had ended before it, or had not begun"
    return "its signature is wrong"


def _may_have_ended(note, own):
    """Whether it is signed by a key of the auditor's that was replaced, who knows when."""
    return not all(key.first for key in own) and not own[-1].signed(note)


def _judge_by_bundle(name, note, bundle, findings):
    """The bundle may say that the key had ended. That it had not is no proof: a thief of the key made the bundle, too."""
    if signature_mistake(note, _keys_of(bundle)):
        findings.bad("%s: it is signed by a key that had ended before it, or had not begun" % name)
        return
    findings.not_sure(
        "%s is signed by a key that has another one after it in the file of --key, and the file does not say when it ended. "
        "Write the number of its first checkpoint before each later key, as in keys.txt of a newer bundle, or give "
        "--checkpoints that you kept" % name
    )


def check_seals(note, seals, run, hashes, findings):
    """Whether the checkpoint covers these events: each leaf leads to its root and has the hash of its event."""
    trusted, wrong = 0, ""
    for seal in seals:
        try:
            leaf, position = seal["leaf"], int(seal["position"])
            path = [bytes.fromhex(item) for item in seal["path"]]
            subject, seq, head = leaf.rsplit(" ", 2)
        except (KeyError, ValueError, TypeError, AttributeError):
            wrong = "checkpoint %d: what it says of this run is damaged" % note.number
            break
        if root_along(path, position, note.size, leaf) != note.root:
            wrong = "checkpoint %d: it does not cover “%s”" % (note.number, leaf[:60])
            break
        wrong = _differs("checkpoint %d" % note.number, subject, int(seq), head, run, hashes, trusted)
        if wrong:
            break
        trusted = int(seq)
    if wrong:
        findings.bad(wrong)
    elif not trusted:
        findings.not_sure("checkpoint %d says nothing of this run" % note.number)
    else:
        findings.fine("checkpoint %d covers event 1 to event %d" % (note.number, trusted))
        if len(hashes) > trusted:
            findings.note(
                "what follows event %d is newer than the checkpoint; a later bundle shows it sealed" % trusted
            )


def _differs(who, subject, seq, head, run, hashes, trusted):
    if subject != "run %s" % run:
        return "%s: it speaks of %s, not of run %s" % (who, subject, run)
    if seq not in hashes:
        return "event %d: it is missing; %s saw the events up to %d" % (len(hashes) + 1, who, seq)
    if hashes[seq] != head:
        first = "event %d" % seq if trusted + 1 == seq else "one of the events %d to %d" % (trusted + 1, seq)
        return "%s was written anew: %s saw another one" % (first, who)
    return ""


def check_kept(kept, note, own_keys, bundle, run, hashes, exported, findings):
    """Against checkpoints that the auditor kept: they cannot have been changed by whoever changed the database.

    A key may have been replaced since the export. Without keys of the auditor's own, the signature of a newer checkpoint
    that names a key unknown to the bundle cannot be checked. What it saw is compared all the same.
    """
    seen, trusted, unchecked = {}, 0, []
    # Of those that the bundle names, any may have signed what the auditor kept: where they end is the bundle's word.
    keys = own_keys or [Key(key.text, 0) for key in _keys_of(bundle)]
    for text, leaves in kept:
        try:
            own = Note(text)
        except ValueError as mistake:
            findings.bad("kept checkpoint: %s" % mistake)
            return
        is_newer = note is None or own.number > note.number
        if is_newer and not own_keys and not any(key.is_named_in(own) for key in keys):
            unchecked.append(own.number)
            wrong = ""
        else:
            wrong = signature_mistake(own, keys)
        before = seen.get(own.number - 1)
        if not wrong and seen.get(own.number, own).text != text:
            wrong = "you have two of this number: the database was set back between them"
        if not wrong and before is not None and own.previous != before.hash:
            wrong = "it does not follow checkpoint %d that you kept" % before.number
        if not wrong and note is not None and note.number == own.number and note.text != text:
            wrong = "the one in the bundle is another one"
        if wrong:
            findings.bad("kept checkpoint %d: %s" % (own.number, wrong))
            return
        seen[own.number] = own
        for leaf in leaves:
            subject, seq, head = leaf.rsplit(" ", 2)
            if subject != "run %s" % run or (is_newer and int(seq) not in hashes and own.at > exported):
                continue
            wrong = _differs(
                "checkpoint %d that you kept" % own.number, subject, int(seq), head, run, hashes, trusted
            )
            if wrong:
                findings.bad(wrong)
                return
            trusted = max(trusted, int(seq))
    newest = seen[max(seen)]
    if newest.at < exported - CLOCKS and (note is None or note.number < newest.number):
        findings.bad(
            "checkpoint %d: the bundle was exported after it and does not know it: the database had been set back"
            % (note.number + 1 if note else 1)
        )
        return
    if unchecked:
        findings.not_sure(
            "checkpoint %d that you kept is newer than the bundle's and signed by a key that did not come with the bundle, as "
            "after a key was replaced: its signature could not be checked. Put every key that you were given into the file of "
            "--key, a line each" % min(unchecked)
        )
        return
    findings.fine("the %d checkpoints that you kept agree with the bundle" % len(seen))


def check_evidence(bundle, findings):
    """Each file that an event attached lies under its SHA-256 and has it."""
    count = 0
    for line in bundle.text("events.jsonl").split("\n"):
        try:
            event = json.loads(line)
            body, seq = event["body"], event["seq"]
            if event["kind"] != "evidence.attached" or not body["sha256"]:
                continue
            name, wanted = "evidence/" + body["sha256"], body["sha256"]
        except (ValueError, KeyError, TypeError):
            continue  # the chain has told it already
        count += 1
        if name not in bundle.names:
            findings.bad("evidence “%s” of event %d: the file is missing" % (body["name"], seq))
        elif bundle.sha256(name) != wanted:
            findings.bad(
                "evidence “%s” of event %d: the file is not the one that was attached" % (body["name"], seq)
            )
        else:
            continue
        return
    findings.fine(
        "%d evidence file%s: each is the one that was attached" % (count, "" if count == 1 else "s")
    )


def check_procedures(bundle, findings):
    """Each text that the run followed lies under the SHA-256 that its events name, and has it."""
    count = 0
    for line in bundle.text("events.jsonl").split("\n"):
        try:
            event = json.loads(line)
            if event["kind"] not in ("run.started", "run.gone-over"):
                continue
            wanted, seq = event["body"]["procedure_hash"], event["seq"]
            name = "procedures/" + wanted + ".yaml"
        except (ValueError, KeyError, TypeError):
            continue  # the chain has told it already
        count += 1
        if name not in bundle.names:
            findings.bad("procedure of event %d: its text is missing" % seq)
            return
        if bundle.sha256(name) != wanted:
            findings.bad("procedure of event %d: the text is not the one that the run followed" % seq)
            return
    findings.fine("%d text%s of procedures: as the run followed them" % (count, "" if count == 1 else "s"))


def check_files(bundle, manifest, findings):
    """Whether report and all other files are those that were exported."""
    listed = manifest.get("files", {})
    for name in sorted(set(bundle.names) - {"manifest.json"}):
        if name not in listed:
            findings.bad("%s: it did not belong to the bundle when it was exported" % name)
            return
    for name in sorted(listed):
        if name not in bundle.names:
            findings.bad("%s: it was taken out of the bundle" % name)
            return
        if bundle.sha256(name) != listed[name]:
            findings.bad("%s: it is not the file that was exported" % name)
            return
    findings.fine("the report and all other files are as the bundle's manifest lists them")
    findings.note(
        "the manifest itself has no signature; Runbook's register has its SHA-256 beside the export: %s"
        % bundle.sha256("manifest.json")
    )


def _time(text):
    try:
        return datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise CannotCheck("manifest.json does not say when the bundle was exported.")


def shown(at):
    return at.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


# --- the command line -----------------------------------------------------------------------------


def read_kept(paths):
    """Notes with their leaves, oldest first, out of files of lines."""
    found = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    try:
                        item = json.loads(line)
                        found.append((item["note"], item["leaves"]))
                    except (ValueError, KeyError, TypeError):
                        continue  # cut off by a crash: the whole line follows
        except (OSError, UnicodeDecodeError) as trouble:
            raise CannotCheck("%s cannot be read: %s." % (path, trouble))
    if paths and not found:
        raise CannotCheck("%s holds no checkpoint." % ", ".join(paths))
    return found


def read_keys(path):
    if path is None:
        return []
    try:
        with open(path, encoding="utf-8") as lines:
            keys = [_own_key(line.strip(), place) for place, line in enumerate(filter(str.strip, lines))]
    except (OSError, UnicodeDecodeError) as trouble:
        raise CannotCheck("%s cannot be read: %s." % (path, trouble))
    if not keys:
        raise CannotCheck("%s holds no key." % path)
    numbers = [key.first for key in keys if key.first]
    if numbers != sorted(set(numbers)):
        raise CannotCheck(
            "The keys in %s are not in the order of their first checkpoints, oldest first." % path
        )
    return keys


def _own_key(line, place):
    """A key, and before it, where it is known, the number of its first checkpoint. The oldest one signed from the first on."""
    number, _, text = line.partition(" ")
    if text and number.isascii() and number.isdigit() and int(number):
        return Key(text, int(number))
    return Key(line, 0 if place else 1)


def main(arguments=None, say=print):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=True
    )
    parser.add_argument("bundle", help="the zip file, or the folder that it was unpacked into")
    parser.add_argument("--key", help="file with the public key that you were given")
    parser.add_argument(
        "--checkpoints", action="append", default=[], help="file of checkpoints that you kept"
    )
    chosen = parser.parse_args(arguments)
    try:
        keys, kept = read_keys(chosen.key), read_kept(chosen.checkpoints)
        findings = check(Bundle(chosen.bundle), keys, kept, say)
    except CannotCheck as trouble:
        say("The record could not be checked. %s" % trouble)
        return NOT_CHECKED
    if findings.broken:
        say("The record is NOT what was written. The first broken record is %s." % findings.broken[0])
        return BROKEN
    if findings.unsure:
        say("The record holds together, but %s." % findings.unsure[0])
        return NOT_CHECKED
    say(
        "The record is what was written."
        if keys
        else "The record is what was written, if the key is the right one."
    )
    return SOUND


if __name__ == "__main__":
    sys.exit(main())
