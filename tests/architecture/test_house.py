"""Rules of the house that the import linter cannot see."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "treadle"
FILES = sorted(SOURCE.rglob("*.py"))
#: Who touches ``dask.config`` itself: the reader of settings, the nanny, which hands the whole of it to its worker process,
#: and the client, which becomes dask's scheduler while it is open. The chaos runs set what they need, as users do.
USES_DASK_CONFIG = {
    "config.py",
    "nanny/server.py",
    "nanny/child.py",
    "client/current.py",
    "testing/chaos/cuts.py",
    "testing/chaos/workers.py",
}


def name_of(path):
    return path.relative_to(SOURCE).as_posix()


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_configuration_is_read_in_one_place():
    users = {name_of(path) for path in FILES if any(name.startswith("dask.config") for name in imports_of(path))}
    assert users <= USES_DASK_CONFIG


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_has_a_docstring_and_a_size_that_one_can_read(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the first line says what the file is about"
    assert len(text.splitlines()) <= 800


def test_nobody_imports_other_schedulers():
    for path in FILES:
        assert not any(name.split(".")[0] in ("distributed", "ray", "tornado") for name in imports_of(path)), path
