"""`make coverage-map`: each demand, what of the product answers to it, and the tests that exercise that.

Read from the sources themselves: texts by the loader, rules and marks by their syntax tree, so that nothing has to run.
A marked test counts only when it asserts something beside the id itself.
"""

import ast
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path

from upgrades.procedures.loader import builtin, load

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/requirements.md"
DEMANDS = tomllib.loads((ROOT / "tests/requirements.toml").read_text("utf-8"))
IDS = [name for part in DEMANDS.values() for name in part]
SHOWN = 4  # places in a cell; the number of the others is told

HEAD = """# What is demanded, what answers to it, what proves it

Written by `make coverage-map`; a test compares it with what stands in the repository. The second column names items of
procedures (`text/step.gate`) and rules in the code (`module: function`); the third the tests that exercise them.
Kinds: R rule, P prerequisite, S step, E log event, B branch, X exposure, N notice.
"""


def items():
    """Id -> the items of the shipped texts that cite it."""
    found = {name: [] for name in IDS}
    for path, text in builtin():
        procedure = load(text, name=str(path))
        for place, sources in _cited(procedure, procedure.id):
            for name in sources:
                if name in found and place not in found[name]:
                    found[name].append(place)
    return found


def _cited(part, place):
    if isinstance(part, tuple):
        for inner in part:
            yield from _cited(inner, place)
    elif is_dataclass(part):
        name = getattr(part, "id", "")
        inside = f"{place}{'.' if '/' in place else '/'}{name}" if name and name != place else place
        yield inside, getattr(part, "source", ())
        for field in fields(part):
            yield from _cited(getattr(part, field.name), inside)


def rules():
    """Id -> the functions and constants of the code that state it as their source."""
    found = {name: [] for name in IDS}
    for path in sorted((ROOT / "upgrades/domain").glob("*.py")):
        for part in _parts(ast.parse(path.read_text("utf-8")).body):
            for name in _texts(part):
                place = f"{path.stem}: {_name(part)}"
                if name in found and place not in found[name]:
                    found[name].append(place)
    return found


def _parts(body):
    for part in body:
        if isinstance(part, ast.ClassDef):
            yield from _parts(part.body)
        else:
            yield part


def _name(part):
    if isinstance(part, ast.Assign):
        return ast.unparse(part.targets[0])
    return getattr(part, "name", "") or ast.unparse(getattr(part, "target", part)).splitlines()[0]


def _texts(part):
    return [
        one.value for one in ast.walk(part) if isinstance(one, ast.Constant) and isinstance(one.value, str)
    ]


def tests():
    """Id -> the marked tests that assert something of its behaviour; ids that nobody knows are there too."""
    found = {name: [] for name in IDS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for part in _parts(ast.parse(path.read_text("utf-8")).body):
            for name in _marks(part):
                place = f"{path.relative_to(ROOT / 'tests')}: {part.name}"
                if exercises(part, name) and place not in found.setdefault(name, []):
                    found[name].append(place)
    return found


def _marks(part):
    for mark in getattr(part, "decorator_list", ()):
        if isinstance(mark, ast.Call) and ast.unparse(mark.func).rpartition(".")[2] == "requirement":
            yield from (one.value for one in mark.args if isinstance(one, ast.Constant))


def exercises(test, name):
    """Whether the test asserts, or awaits a refusal, beyond looking whether the id stands somewhere."""
    for part in ast.walk(test):
        if isinstance(part, ast.Assert) and not _looks_for(part.test, name):
            return True
        if isinstance(part, ast.Call) and ast.unparse(part.func) == "pytest.raises":
            return True
    return False


def _looks_for(asked, name):
    return (
        isinstance(asked, ast.Compare)
        and len(asked.ops) == 1
        and isinstance(asked.ops[0], ast.In | ast.NotIn)
        and isinstance(asked.left, ast.Constant)
        and asked.left.value == name
    )


def page():
    """The text of docs/requirements.md."""
    cited, stated, proofs = items(), rules(), tests()
    lines = [HEAD]
    for part, demands in DEMANDS.items():
        lines += [
            f"\n## {part.replace('-', ' ').capitalize()}\n",
            "| id | kind | what it is about | answered by | proved by |",
        ]
        lines.append("|---|---|---|---|---|")
        for name, said in demands.items():
            kind, _, about = said.partition(": ")
            lines.append(
                f"| {name} | {kind} | {about} | {_cell(cited[name] + stated[name])} | {_cell(proofs[name])} |"
            )
    return "\n".join(lines) + "\n"


def _cell(places):
    more = f"<br>and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return "<br>".join(f"`{place}`" for place in places[:SHOWN]) + more


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
