"""Evidence files: taken in whole or not at all, hashed as they arrive, never shown in a page."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
import uuid
from dataclasses import replace
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.core.files.base import File
from django.core.files.uploadedfile import UploadedFile
from django.db import DatabaseError, transaction
from django.db.models import Count, Sum
from django.utils import timezone

from upgrades.adapters.crash_points import crash
from upgrades.domain.refusal import BadInput, NotAllowed, Unavailable
from upgrades.domain.run import Attach
from upgrades.models import CommandReceipt, Evidence, Run
from upgrades.services import register, runs
from upgrades.services.people import actor_for
from upgrades.services.runs import Done, NoSuchRun

logger = logging.getLogger(__name__)

MOST_FILES = 200  # of one run


def attach_file(
    *,
    run_id: int,
    step: str,
    visit: int,
    gate: str,
    upload: UploadedFile[bytes],
    text: str,
    by: AbstractUser,
    command_id: UUID,
    head: str = "",
) -> Done:
    """Store an uploaded file and put its hash on the record. A refusal leaves no file behind.

    Unavailable where the folder for evidence is full or read-only.
    """
    size = upload.size or 0
    limit = settings.EVIDENCE_MAX_BYTES
    if size > limit:
        raise BadInput(
            f"The file has {size:,} bytes; at most {limit:,} are taken. Attach an extract, or write down where the "
            "whole file lies and its SHA-256.",
            "file",
        )
    if size == 0:
        raise BadInput("The file is empty, so it proves nothing. Choose another one.", "file")
    if not _may_act(run_id, by):
        raise NoSuchRun("There is no such run, or you have no role in its environment.")
    if CommandReceipt.objects.filter(pk=command_id).exists():
        attach = Attach(step=step, visit=visit, gate=gate, text=text, sha256="0")
        return runs.act(run_id=run_id, command=attach, by=by, command_id=command_id)
    _must_have_room(run_id, size)
    return _store(run_id, step, visit, gate, upload, text, by, command_id, head)


def _must_have_room(run_id: int, size: int) -> None:
    """Each run has so many files and bytes. Two that come at once may both pass: a file too many harms nobody."""
    kept = Evidence.objects.filter(run=run_id).aggregate(files=Count("pk"), size=Sum("size"))
    if kept["files"] >= MOST_FILES:
        raise BadInput(
            f"This run has {MOST_FILES} files already, and no more are taken. Put several into one archive, or write "
            "down where they lie and their SHA-256.",
            "file",
        )
    room = settings.EVIDENCE_RUN_BYTES - (kept["size"] or 0)
    if size > room:
        raise BadInput(
            f"The files of this run have room for {max(room, 0):,} bytes more, and this one has {size:,}. Attach an extract, "
            "or write down where the whole file lies and its SHA-256.",
            "file",
        )


def _store(
    run_id: int,
    step: str,
    visit: int,
    gate: str,
    upload: UploadedFile[bytes],
    text: str,
    by: AbstractUser,
    command_id: UUID,
    head: str,
) -> Done:
    row = Evidence(
        run_id=run_id,
        name=clean_name(upload.name or ""),
        size=upload.size or 0,
        sha256=_hash(upload),
        uploaded_by=by.get_full_name() or by.get_username(),
        uploaded_at=timezone.now(),
    )
    attach = Attach(
        step=step, visit=visit, gate=gate, text=text, name=row.name, sha256=row.sha256, size=row.size
    )
    # The file first and the run's lock after it: a slow disk must not keep others from acting.
    crash("evidence.before-file")
    row.file.name = _write(row, upload)
    crash("evidence.file-written")
    try:
        return _record(row, attach, by, command_id, head)
    except NotAllowed as refusal:
        runs.record_refusal(run_id, attach, by, refusal)  # what `act` noted went back with the row
        raise
    finally:
        if not _is_on_record(row):
            _remove(row, row.file.name)


def _write(row: Evidence, upload: UploadedFile[bytes]) -> str:
    """The name of the stored file. Unavailable where the folder takes no whole file; nothing of it is left there then."""
    place = f"{row.run_id}/{uuid.uuid4().hex}"
    try:
        return row.file.storage.save(place, upload)
    except OSError as trouble:
        logger.error("evidence of run %s could not be stored: %s", row.run_id, trouble)
        _remove(row, place)
        raise Unavailable(
            "The file could not be stored: the folder for evidence is full, or cannot be written to. Nothing was attached and "
            "nothing else was changed. Tell the administrator and attach it again later, or write down where the file lies "
            "and its SHA-256."
        ) from trouble


def _remove(row: Evidence, place: str) -> None:
    try:
        row.file.storage.delete(place)
    except OSError as trouble:  # a file too many harms nobody; what happened to the act is what counts
        logger.warning("evidence file %s is on no record and could not be removed: %s", place, trouble)


def _record(row: Evidence, attach: Attach, by: AbstractUser, command_id: UUID, head: str) -> Done:
    with transaction.atomic():
        row.save()
        crash("evidence.row-written")
        done = runs.act(
            run_id=row.run_id,
            command=replace(attach, evidence=row.pk),
            by=by,
            command_id=command_id,
            head=head,
        )
        if done.repeated:  # the same form came twice at once: the file of the first is the one on record
            transaction.set_rollback(True)
    crash("evidence.committed")
    return done


def _is_on_record(row: Evidence) -> bool:
    """Whether the row was kept. Where the database does not say, a file too many is better than one too few."""
    try:
        return Evidence.objects.filter(pk=row.pk, file=row.file.name).exists()
    except DatabaseError:
        return True


def _may_act(run_id: int, by: AbstractUser) -> bool:
    run = Run.objects.select_related("environment").filter(pk=run_id).first()
    return run is not None and bool(actor_for(by, run.environment).roles)


def _hash(upload: UploadedFile[bytes]) -> str:
    found = hashlib.sha256()
    for chunk in upload.chunks():
        found.update(chunk)
    upload.seek(0)
    return found.hexdigest()


def clean_name(name: str) -> str:
    """The file's own name as data: the last part, without control and direction characters, 200 characters at most."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(char for char in last if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return shown.strip(" .")[:200] or "file"


def open_file(run_id: int, evidence_id: int, by: AbstractUser) -> tuple[Evidence, File[bytes]]:
    """The row and the open file, for whoever has a role in the run's environment; the record says who opened it.

    Unavailable when it cannot be read, or what is stored is not what was attached: then it is given to nobody.
    """
    row = Evidence.objects.filter(pk=evidence_id, run_id=run_id).first()
    if row is None or not _may_act(row.run_id, by):
        raise NoSuchRun("There is no such file, or you have no role in its environment.")
    try:
        file = row.file.open("rb")
    except OSError as trouble:
        logger.error("evidence file %s of run %s cannot be read: %s", row.file.name, run_id, trouble)
        raise Unavailable(
            f"The stored file of “{row.name}” cannot be read now. Tell the administrator: the folder for evidence is not as it "
            "was. The record of the run still has the file's SHA-256."
        ) from trouble
    if hashlib.file_digest(file, "sha256").hexdigest() != row.sha256:
        file.close()
        raise Unavailable(
            f"The stored file of “{row.name}” is not what was attached: its SHA-256 is another one. It is not given out. "
            "Tell the administrator; the record of the run still has the right SHA-256."
        )
    file.seek(0)
    register.evidence_opened(row, by)
    return row, file
