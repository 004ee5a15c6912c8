"""The commands that export and import environments."""

import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.factories import make_environment, make_user
from upgrades.domain.environment_records import FIELDS
from upgrades.models import Environment
from upgrades.queries.environment_export import exported

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment():
    return make_environment("Lab")


@pytest.fixture
def admin(environment):
    return make_user("administrator", environment=environment, name="sofia")


def run(*arguments, **options):
    out, err = StringIO(), StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=err, **options)
    except CommandError as error:
        return out.getvalue(), f"{err.getvalue()}{error}"
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize("form", ["csv", "yaml"])
def test_export_writes_the_file_that_the_page_gives(environment, form):
    assert run("export_environment", "Lab", form=form)[0] == exported(environment, form)


def test_an_unknown_name_is_answered_with_those_that_are_known(environment):
    assert "There are: “Lab”" in run("export_environment", "Prod")[1]


def test_import_shows_and_applies_only_when_told_to(environment, admin, tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(exported(environment, "yaml").replace("8.1.3", "8.5.1"))
    out, _ = run("import_environment", "Lab", str(path), user="sofia")
    assert "changed application confserv\n    Version: 8.1.3 -> 8.5.1" in out
    assert not environment.applications.filter(version="8.5.1").exists()
    out, _ = run("import_environment", "Lab", str(path), user="sofia", apply=True)
    assert "Applied." in out
    assert environment.applications.filter(version="8.5.1").count() == 2


def test_import_tells_every_mistake_and_changes_nothing(environment, admin, tmp_path):
    path = tmp_path / "lab.csv"
    path.write_text(exported(environment, "csv").replace("8.1.3", "08. Mai").replace("2020", "x"))
    _, err = run("import_environment", "Lab", str(path), user="sofia", apply=True)
    assert "line 6, column 4 (cell D6): application confserv: “08. Mai” looks like a date" in err
    assert "6 mistakes" in err
    assert "Nothing was changed." in err


def test_import_makes_the_environment_when_asked_to(environment, admin, tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(exported(environment, "yaml").replace("Lab", "Copy"))
    run("import_environment", "Copy", str(path), user="sofia", apply=True, create=True)
    assert exported(Environment.objects.get(name="Copy"), "yaml") == path.read_text()


def test_import_needs_an_administrator(environment, admin, tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(exported(environment, "yaml").replace("8.1.3", "8.5.1"))
    make_user("operator", environment=environment, name="nina")
    assert (
        "takes the role administrator"
        in run("import_environment", "Lab", str(path), user="nina", apply=True)[1]
    )
    assert "There is no user" in run("import_environment", "Lab", str(path), user="nobody")[1]


def test_the_documentation_names_every_field_of_every_kind():
    text = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    for kind, fields in FIELDS.items():
        row = re.search(rf"^\| `{kind}` \| (.*) \|$", text, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row[1]) == [field.name for field in fields]


def test_the_example_of_the_documentation_can_be_imported(environment, admin, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    path = tmp_path / "example.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    out, err = run("import_environment", "Example", str(path), user="sofia", apply=True, create=True)
    assert (out.endswith("Applied.\n"), err) == (True, "")
