"""Publishing procedures: a text becomes a version that never changes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from upgrades.domain.procedure import goings_over
from upgrades.domain.refusal import Refused
from upgrades.models import ProcedureVersion
from upgrades.procedures.loader import load, whole_text

FOLDER = Path(__file__).resolve().parent.parent / "procedures"
_NAME = re.compile(r"[a-z0-9-]{2,64}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)


class ChangedText(Refused):
    """A number that is published already came with another text."""

    code = "changed-text"


class Misplaced(Refused):
    """The file does not lie where its own text says it belongs."""

    code = "misplaced"


@dataclass(frozen=True, slots=True)
class Published:
    """One version, and whether it is new."""

    procedure: str
    version: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Beside:
    """The texts of a folder, for those that name each other. Two of one folder are equal: what was read is known."""

    folder: Path

    def __call__(self, other: str, version: int) -> bytes | None:
        file = self.folder / other / f"{version}.yaml"
        return file.read_bytes() if _NAME.fullmatch(other) and file.is_file() else None


def publish_all(folder: Path = FOLDER) -> list[Published]:
    """Publish every `<procedure>/<version>.yaml` below `folder`, lowest version first; all of them or none."""
    files = [path for path in folder.glob("*/*.yaml") if _VERSION.fullmatch(path.stem)]
    with transaction.atomic():
        return [publish(path) for path in sorted(files, key=lambda path: (path.parent.name, int(path.stem)))]


@transaction.atomic
def publish(path: Path) -> Published:
    """Publish one file. The same text again changes nothing; `ProcedureMistakes` lists what is wrong with it."""
    name = f"{path.parent.name}/{path.name}"
    text = path.read_bytes()
    beside = Beside(path.parent.parent)
    procedure = load(text, name=name, library=beside)
    text = whole_text(text, name=name, library=beside)
    if (procedure.id, str(procedure.version)) != (path.parent.name, path.stem):
        raise Misplaced(
            f"{name} says of itself that it is {procedure.id}, version {procedure.version}. "
            "Move the file, or correct what it says."
        )
    known = ProcedureVersion.objects.filter(procedure=procedure.id, version=procedure.version).first()
    if known is not None and known.text_hash != procedure.text_hash:
        raise ChangedText(
            f"{name} has changed since it was published on {known.published_at:%d %B %Y}: runs rest on the text "
            f"as it was. Restore it, and publish the change as {procedure.id}/{procedure.version + 1}.yaml."
        )
    if known is None:
        for over in goings_over(procedure):  # a run that goes over must find the other text
            publish(path.parent.parent / over.procedure / f"{over.version}.yaml")
        ProcedureVersion.objects.create(
            procedure=procedure.id,
            version=procedure.version,
            title=procedure.title,
            component=procedure.component,
            text=text.decode(),
            text_hash=procedure.text_hash,
            published_at=timezone.now(),
        )
    return Published(procedure.id, procedure.version, known is None)
