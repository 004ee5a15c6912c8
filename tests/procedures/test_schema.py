"""The JSON Schema for editors: it is made of the loader's tables, and both agree on the shipped texts."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from upgrades.procedures import loader

FILE = Path(loader.__file__).with_name("procedure.schema.json")
VALIDATOR = jsonschema.Draft202012Validator(loader.schema())


def as_file(schema):
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def test_the_committed_file_is_what_the_tables_say():
    assert FILE.read_text() == as_file(loader.schema()), (
        "Write it anew: python -c 'from tests.procedures.test_schema import *; FILE.write_text(as_file(loader.schema()))'"
    )


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(loader.schema())


@pytest.mark.parametrize(
    ("path", "text"), [pytest.param(*item, id=item[0].parent.name) for item in loader.builtin()]
)
def test_shipped_texts_follow_the_schema_and_name_it(path, text):
    first = text.decode().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../procedure.schema.json"
    assert (path.parent / "../procedure.schema.json").resolve() == FILE
    assert list(VALIDATOR.iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        pytest.param(lambda text: text.update(aprovers=[]), [], id="unknown key"),
        pytest.param(lambda text: text.update(version=8.1), ["version"], id="number that is not whole"),
        pytest.param(lambda text: text["steps"][0].pop("do"), ["steps", 0], id="missing key"),
        pytest.param(
            lambda text: text["steps"][6].update(expected="soon"), ["steps", 6, "expected"], id="length"
        ),
    ],
)
def test_an_editor_sees_what_the_loader_refuses(change, where):
    text = yaml.safe_load(loader.builtin()[0][1])
    change(text)
    assert where in [list(error.absolute_path) for error in VALIDATOR.iter_errors(text)]
