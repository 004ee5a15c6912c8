"""Files of environments that must do no harm (rows E). Most are proved where files are read; here is the rest."""

import io
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from tests.factories import frankfurt, make_environment, make_user
from upgrades.models import ImportDraft, RegisterEntry
from upgrades.queries.environment_export import changes_book

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment():
    return make_environment(world=frankfurt())


@pytest.fixture
def send(client, environment):
    client.force_login(make_user("administrator", environment=environment))

    def post(data, name="environment.csv"):
        upload = SimpleUploadedFile(name, data)
        return client.post(reverse("import-environment", args=[environment.pk]), {"file": upload})

    return post


def workbook(*entries):
    """A workbook of these entries, written without looking at their names or sizes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


WORKBOOK = "Excel workbooks"
XML = "HTML or XML"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(
            b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>',
            XML,
            id="E01 entity",
            marks=pytest.mark.bad_input("E01"),
        ),
        pytest.param(
            b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><x/>',
            XML,
            id="E01 parameter entity",
            marks=pytest.mark.bad_input("E01"),
        ),
        pytest.param(b"<a>" * 200_000, XML, id="E02 depth", marks=pytest.mark.bad_input("E02")),
        pytest.param(
            b"<?xml version='1.0'?>" + b"<a>" * 100_000 + b"</a>" * 100_000,
            XML,
            id="E02 depth, closed",
            marks=pytest.mark.bad_input("E02"),
        ),
        pytest.param(
            workbook(("xl/worksheets/sheet1.xml", b"0" * 100_000_000)),
            WORKBOOK,
            id="E03 a bomb",
            marks=pytest.mark.bad_input("E03"),
        ),
        pytest.param(
            workbook(("../../etc/cron.d/x", b"x"), ("/etc/passwd", b"x")),
            WORKBOOK,
            id="E03 paths",
            marks=pytest.mark.bad_input("E03"),
        ),
        pytest.param(
            workbook(("xl/vbaProject.bin", b"macro"), ("xl/workbook.xml", b"<f>HYPERLINK()</f>")),
            WORKBOOK,
            id="E04 macros and formulas",
            marks=pytest.mark.bad_input("E04"),
        ),
        pytest.param(
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500,
            "",
            id="E04 an old workbook",
            marks=pytest.mark.bad_input("E04"),
        ),
    ],
)
def test_workbooks_and_xml_are_refused_by_their_first_bytes_and_never_unpacked(send, environment, data, told):
    """Neither format is read at all, so nothing of it can do harm: the sheet is saved as CSV (docs/environments.md)."""
    for name in ("environment.csv", "environment.xlsx", "environment.yaml"):
        answer = send(data, name)
        assert answer.status_code == 400
        assert told in answer.content.decode()
    assert not ImportDraft.objects.exists()
    assert not RegisterEntry.objects.filter(book=changes_book(environment.pk)).exists()


@pytest.mark.bad_input("E12")
@pytest.mark.parametrize("column", ["password", "secret", "db_password", "license_key"])
def test_a_file_with_passwords_is_refused_and_nothing_of_it_is_shown_or_kept(send, environment, column):
    """There is no place for them, so such a column is unknown; its cells are not repeated anywhere."""
    data = f"name,type,host,{column}\nconfserv,SCS,h1,hunter2-hunter2\n".encode()
    answer = send(data)
    text = answer.content.decode()

    assert answer.status_code == 400
    assert column in text
    assert "hunter2-hunter2" not in text
    assert not ImportDraft.objects.exists()
    assert not RegisterEntry.objects.filter(text__contains="hunter2-hunter2").exists()


@pytest.mark.bad_input("E12")
def test_an_export_has_no_key(client, environment):
    client.force_login(make_user("administrator", environment=environment))
    environment.agents.update(secret="ab" * 32)
    for form in ("csv", "yaml"):
        data = client.get(reverse("export-environment", args=[environment.pk, form])).content.decode()
        assert "ab" * 32 not in data
        assert "sealed1" not in data
