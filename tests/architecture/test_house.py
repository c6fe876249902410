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
    "unused_settings.py",
    "nanny/server.py",
    "nanny/child.py",
    "client/dask_config.py",
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


#: Who makes files otherwise than by ``utils/private.py``, and why others may read them.
MAKES_FILES_FOR_OTHERS = {
    # Changes and reads what is there.
    "journal/directory.py": {"open(..., 'rb+')"},
    # A pid file is for others, and holds nothing else.
    "cli/process.py": {"write_text"},
}


def makes_files(path):
    """The calls that make a file or a directory, as they are written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
        if name == "open" and any(set(mode) & set("wax+") for mode in modes if len(mode) <= 4):
            if not (node.args and isinstance(node.args[0], ast.Call) and ast.unparse(node.args[0].func) == "create_private"):
                yield f"open(..., {modes[-1]!r})"
        elif name in ("mkdir", "makedirs", "mkdtemp", "mkstemp", "write_text", "write_bytes", "NamedTemporaryFile"):
            yield name
        elif "O_CREAT" in ast.unparse(node) and name == "open":
            yield "os.open"


def test_files_are_made_for_their_owner_alone():
    for path in FILES:
        name = name_of(path)
        if name != "utils/private.py" and not name.startswith("testing/"):
            assert set(makes_files(path)) <= MAKES_FILES_FOR_OTHERS.get(name, set()), path
