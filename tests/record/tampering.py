"""What somebody does who owns the database, or who has the bundle in an editor."""

import hashlib
import json
import zipfile
from contextlib import contextmanager

from django.db import connection

TABLES = {
    "upgrades_runevent": "record_is_append_only",
    "upgrades_registerentry": "register_is_append_only",
    "upgrades_checkpointleaf": "leaves_are_append_only",
    "upgrades_checkpoint": "checkpoints_are_append_only",
}


@contextmanager
def as_owner(*tables):
    """SQL with the triggers of the tables (default: all) taken away, as only their owner can."""
    chosen = tables or TABLES
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in chosen:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {TABLES[table]}")
        yield lambda sql, *values: cursor.execute(sql, values)
        for table in chosen:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER {TABLES[table]}")


def rechain(sql, run):
    """Give the events of a run new hashes, so that the chain holds in itself; and the run's row the new head."""
    sql("SELECT seq, text FROM upgrades_runevent WHERE run_id = %s ORDER BY seq", run)
    with connection.cursor() as reading:
        reading.execute("SELECT seq, text FROM upgrades_runevent WHERE run_id = %s ORDER BY seq", [run])
        rows = reading.fetchall()
    previous = "0" * 64
    for seq, text in rows:
        digest = hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
        sql(
            "UPDATE upgrades_runevent SET previous = %s, hash = %s WHERE run_id = %s AND seq = %s",
            previous, digest, run, seq,
        )  # fmt: skip
        previous = digest
    sql("UPDATE upgrades_run SET head = %s, seq = %s WHERE id = %s", previous, rows[-1][0], run)


def edited(path, target, **changes):
    """A copy of the bundle with files replaced (bytes), taken out (None), or put through a function.

    The manifest is made to fit, as somebody who knows what he does would.
    """
    with zipfile.ZipFile(path) as bundle:
        files = {name: bundle.read(name) for name in bundle.namelist()}
    for name, change in changes.items():
        name = {
            "events": "events.jsonl",
            "chain": "chain.txt",
            "seals": "seals.json",
            "keys": "keys.txt",
        }.get(name, name)
        if change is None:
            del files[name]
        else:
            files[name] = change(files[name]) if callable(change) else change
    if "manifest.json" not in changes:
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = {
            name: hashlib.sha256(content).hexdigest()
            for name, content in files.items()
            if name != "manifest.json"
        }
        files["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(target, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return target


def lines_of(content):
    return content.decode().split("\n")[:-1]


def file_of(lines):
    return "".join(f"{line}\n" for line in lines).encode()


def chain_of(texts):
    """A chain.txt in which everything fits, for whatever texts."""
    previous, links = "0" * 64, []
    for place, text in enumerate(texts, 1):
        digest = hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
        links.append(f"{place} {previous} {digest}")
        previous = digest
    return file_of(links)
