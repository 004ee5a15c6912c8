"""Files that people attach (rows U): stored as they are, given out as downloads, never shown and never unpacked."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings as project
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.web.run_scene import Stage, no_agents
from upgrades.models import Evidence
from upgrades.services import evidence

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("evidence_folder")]


@pytest.fixture(autouse=True)
def _nobody_logs(monkeypatch):
    no_agents(monkeypatch)


@pytest.fixture
def stage():
    return Stage().reach("backup-database")


@pytest.fixture
def send(client, stage):
    client.force_login(stage.operator)
    stage.advance()
    fields = {**stage.seen, "gate": "database-copy", "text": ""}

    def post(content, name="copy.dmp", kind="application/octet-stream", **changes):
        upload = SimpleUploadedFile(name, content, kind)
        values = {**fields, "command_id": uuid4(), "file": upload, **changes}
        return client.post(f"/runs/{stage.run_id}/attach/", values)

    return post


def files():
    folder = Path(project.EVIDENCE_FOLDER)
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def zip_of(*entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def tar_of_links():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind in (("passwd", tarfile.SYMTYPE), ("null", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return file.getvalue()


HTML = b"<!doctype html><script>alert(document.cookie)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
PDF = b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj"
GIF = b"GIF89a/*\x01\x00*/=1;alert(1)"
# A picture of 50,000 by 50,000 points by its head, and nothing behind it; and one with a place in its EXIF data.
HUGE = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xc3\x50\x00\x00\xc3\x50\x08\x02\x00\x00\x00\x00\x00\x00\x00"
)
EXIF = b"\xff\xd8\xff\xe1\x00\x20Exif\x00\x00GPSLatitude 50.1109\xff\xd9"
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        pytest.param("a.html", "text/html", HTML, marks=pytest.mark.bad_input("U02")),
        pytest.param("a.svg", "image/svg+xml", SVG, marks=pytest.mark.bad_input("U02")),
        pytest.param("a.pdf", "application/pdf", PDF, marks=pytest.mark.bad_input("U02")),
        pytest.param(
            "a.txt",
            "text/plain",
            b'<html xmlns="http://www.w3.org/1999/xhtml"/>',
            marks=pytest.mark.bad_input("U02"),
        ),
        pytest.param("a.gif", "image/gif", GIF, marks=pytest.mark.bad_input("U02")),
        pytest.param(
            "a.zip",
            "application/zip",
            zip_of(("x", b"0" * 50_000_000)),
            marks=pytest.mark.bad_input("U05"),
            id="zip bomb",
        ),
        pytest.param(
            "a.zip",
            "application/zip",
            zip_of(("../../etc/cron.d/x", b"x")),
            marks=pytest.mark.bad_input("U05"),
            id="zip slip",
        ),
        pytest.param(
            "a.zip",
            "application/zip",
            zip_of(("in.zip", zip_of(("x", b"x")))),
            marks=pytest.mark.bad_input("U05"),
            id="zip in zip",
        ),
        pytest.param(
            "a.tar",
            "application/x-tar",
            tar_of_links(),
            marks=pytest.mark.bad_input("U05"),
            id="tar of links",
        ),
        pytest.param(
            "a.log",
            "text/plain",
            gzip.compress(b"0" * 10_000_000),
            marks=pytest.mark.bad_input("U05"),
            id="gz named log",
        ),
        pytest.param("a.png", "image/png", HUGE, marks=pytest.mark.bad_input("U06"), id="huge picture"),
        pytest.param(
            "a.png",
            "image/png",
            b"\x89PNG\r\n\x1a\nbroken",
            marks=pytest.mark.bad_input("U06"),
            id="broken picture",
        ),
        pytest.param(
            "a.jpg", "image/jpeg", EXIF, marks=pytest.mark.bad_input("U06"), id="picture with a place"
        ),
        pytest.param(
            "a.com", "application/octet-stream", EICAR, marks=pytest.mark.bad_input("U08"), id="EICAR"
        ),
    ],
)
def test_whatever_it_is_it_is_stored_as_it_is_and_comes_back_as_a_download(
    send, client, stage, name, kind, content
):
    assert send(content, name, kind).status_code == 303
    row = Evidence.objects.get()
    [stored] = files()
    answer = client.get(f"/runs/{stage.run_id}/evidence/{row.pk}/")

    assert stored.read_bytes() == b"".join(answer.streaming_content) == content
    assert row.sha256 == hashlib.sha256(content).hexdigest()
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{name}"
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.bad_input("U08")
def test_the_page_says_that_nobody_scanned_it(send, client, stage):
    """There is no scanner: whoever downloads a file has the one of the own machine."""
    send(EICAR, "a.com")

    assert "not scanned for malware" in client.get(f"/runs/{stage.run_id}/").content.decode()


@pytest.mark.bad_input("U03")
@pytest.mark.parametrize("said", [str(10 * 1024**3), str(50 * 1024**2 + 1024**2 + 1), "9" * 18])
def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(client, stage, said):
    class Unread(io.BytesIO):
        def read(self, *_):
            raise AssertionError("a byte of it was read")

    client.force_login(stage.operator)
    answer = client.generic(
        "POST",
        f"/runs/{stage.run_id}/attach/",
        **{"wsgi.input": Unread(), "CONTENT_LENGTH": said, "CONTENT_TYPE": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 413
    assert "A file may have at most 52428800 bytes" in answer.content.decode()
    assert files() == []


@pytest.mark.bad_input("U03")
@pytest.mark.parametrize("said", ["-1", "1e9", "٣", "9" * 400, "0x10"])
def test_a_length_that_is_no_number_is_refused(client, stage, said):
    client.force_login(stage.operator)
    answer = client.generic("POST", f"/runs/{stage.run_id}/attach/", CONTENT_LENGTH=said)

    assert answer.status_code == 400
    assert "This request could not be understood" in answer.content.decode()


@pytest.mark.bad_input("U03", "U10")
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(
            "multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; na", id="cut off"
        ),
        pytest.param("multipart/form-data; boundary=x", b"--y\r\n\r\nhello\r\n--y--", id="another boundary"),
        pytest.param("multipart/form-data; boundary=x; boundary=y", b"--x--", id="two boundaries"),
        pytest.param(
            "multipart/form-data; boundary=" + "x" * 500, b"--x--", id="a boundary that is too long"
        ),
        pytest.param("multipart/form-data", b"--x--", id="no boundary"),
        pytest.param(
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n",
            id="a part without a name",
        ),
        pytest.param(
            "multipart/form-data; boundary=x",
            b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(10_000))
            + b"--x--\r\n",
            id="10,000 parts",
        ),
        pytest.param(
            "multipart/form-data; boundary=x",
            b"".join(
                b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n1\r\n'
                for _ in range(100)
            )
            + b"--x--\r\n",
            id="100 files",
        ),
        pytest.param(
            "application/x-www-form-urlencoded", b"&".join(b"a=1" for _ in range(10_000)), id="10,000 fields"
        ),
        pytest.param("application/x-www-form-urlencoded", b"a=" + b"x" * 2_000_000, id="a field of 2 MB"),
        pytest.param("text/html; charset=utf-7", b"+ADw-script+AD4-", id="UTF-7"),
        pytest.param("application/json", b'{"a": 1}', id="JSON"),
    ],
)
def test_a_broken_or_endless_body_is_refused_and_leaves_nothing(client, stage, kind, body):
    client.force_login(stage.operator)
    answer = client.generic("POST", f"/runs/{stage.run_id}/attach/", body, content_type=kind)

    assert answer.status_code in (400, 413)
    assert files() == []
    assert not Evidence.objects.exists()


@pytest.mark.bad_input("U04")
def test_a_run_has_a_bound_of_files(send, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_FILES", 2)
    assert [send(b"%d" % number).status_code for number in range(2)] == [303, 303]
    answer = send(b"one more")

    assert answer.status_code == 400
    assert "This run has 2 files already, and no more are taken." in answer.content.decode()
    assert len(files()) == Evidence.objects.count() == 2


@pytest.mark.bad_input("U04")
def test_a_run_has_a_bound_of_bytes(send, settings):
    settings.EVIDENCE_RUN_BYTES = 100
    assert send(b"x" * 60).status_code == 303
    answer = send(b"y" * 60)

    assert answer.status_code == 400
    assert (
        "The files of this run have room for 40 bytes more, and this one has 60." in answer.content.decode()
    )
    assert len(files()) == 1


@pytest.mark.bad_input("U07")
def test_the_same_file_twice_is_two_pieces_of_evidence_of_one_hash(send):
    """Each lies by itself: taking one away (by a policy of keeping) never takes the proof of another."""
    send(b"the same", "one.log")
    send(b"the same", "two.log")
    rows = Evidence.objects.order_by("pk")

    assert [row.name for row in rows] == ["one.log", "two.log"]
    assert len({row.sha256 for row in rows}) == 1
    assert len({row.file.name for row in rows}) == 2


@pytest.mark.bad_input("U09")
def test_a_file_that_was_exchanged_on_the_disk_is_not_given_out(send, client, stage):
    send(b"as it was")
    [stored] = files()
    stored.chmod(0o600)
    stored.write_bytes(b"another one")
    answer = client.get(f"/runs/{stage.run_id}/evidence/{Evidence.objects.get().pk}/")

    assert answer.status_code == 503
    assert answer.content.decode() == (
        "The stored file of “copy.dmp” is not what was attached: its SHA-256 is another one. It is not given out. "
        "Tell the administrator; the record of the run still has the right SHA-256."
    )


@pytest.mark.bad_input("U11")
@pytest.mark.parametrize(
    "ranges", ["bytes=0-,0-,0-", "bytes=-1", "bytes=5-2", "bytes=0-0,1-1", "bytes=" + "0-," * 5000]
)
def test_ranges_are_passed_over(send, client, stage, ranges):
    send(b"whole")
    answer = client.get(
        f"/runs/{stage.run_id}/evidence/{Evidence.objects.get().pk}/", headers={"Range": ranges}
    )

    assert answer.status_code == 200
    assert b"".join(answer.streaming_content) == b"whole"


@pytest.mark.bad_input("U02")
def test_nobody_without_a_session_gets_a_file(send, stage):
    send(HTML, "a.html")

    assert Client().get(f"/runs/{stage.run_id}/evidence/{Evidence.objects.get().pk}/").status_code == 302
