"""What the tests of the record share: the process that signs, and acts in a run."""

from pathlib import Path
from uuid import uuid4

from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from upgrades.adapters.signing_key import make_key
from upgrades.domain.run import AddNote
from upgrades.services.checkpoints import Checkpointer, Places
from upgrades.services.evidence import attach_file

ORIGIN = "runbook.example.org/runbook"


class Vault:
    """Key, file of checkpoints and the process that signs, in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "checkpoints.jsonl"
        self.mail_to = ()
        self.new_key("key")

    def new_key(self, name):
        self.key_file = self.folder / name
        self.key = make_key(self.key_file, ORIGIN)
        self.restart()

    def use_key(self, name):
        self.key_file = self.folder / name
        self.restart()

    def restart(self, origin=ORIGIN):
        self.process = Checkpointer(Places(self.key_file, origin, self.file, self.mail_to))

    def sign(self, now=None):
        """A checkpoint, as after something weighty: the process finds that it is due."""
        return self.process.tick(now or timezone.now())


def note(stage, text="All is quiet."):
    stage.act(AddNote(text=text))


def attach(stage, name, content):
    return attach_file(
        run_id=stage.run_id,
        **stage.seen,
        gate="",
        upload=SimpleUploadedFile(name, content),
        text="",
        by=stage.operator,
        command_id=uuid4(),
    )
