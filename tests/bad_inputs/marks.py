"""Which test proves which row: read from the marks in the sources, so that nothing has to run."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = {
    name: said
    for part in tomllib.loads(Path(__file__).with_name("rows.toml").read_text("utf-8")).values()
    for name, said in part.items()
}


def marked():
    """Row id -> the tests that carry it, as file::name. A test without an assertion, its own or of its file, does not count."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        parts = ast.walk(ast.parse(path.read_text("utf-8")))
        functions = [part for part in parts if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
        checks = {part.name for part in functions if _asserts(part)}
        for part in functions:
            if part.name.startswith("test_"):
                for name in _ids(part):
                    found.setdefault(name, [])
                    if _asserts(part) or _calls(part) & checks:
                        found[name].append(f"{path.relative_to(ROOT)}::{part.name}")
    return found


def _ids(part):
    """The ids of its marks, also of those that only one of its parameters carries."""
    for decorator in part.decorator_list:
        for call in ast.walk(decorator):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.bad_input":
                yield from (ast.literal_eval(argument) for argument in call.args)


def _asserts(part):
    return any(
        isinstance(one, ast.Assert) or (isinstance(one, ast.withitem) and "raises" in ast.unparse(one))
        for one in ast.walk(part)
    )


def _calls(part):
    return {
        one.func.id for one in ast.walk(part) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)
    }
