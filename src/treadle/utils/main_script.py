"""Import the program's main script in its worker processes, under the name ``__mp_main__``, as multiprocessing does.

So workers have what the script sets up at its top, and find objects that were pickled as names of ``__main__``. The part
under ``if __name__ == "__main__":`` is not run. A script without that line is imported up to where it starts a cluster.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from types import CodeType, ModuleType

#: The name of the script's module in worker processes.
NAME = "__mp_main__"


@dataclass(frozen=True)
class MainScript:
    """What to import: the module of that name (``python -m``), or else the file; and the program's arguments."""

    module: str | None
    path: str | None
    arguments: list[str]


class StartedWhileImported(BaseException):
    """The script starts a cluster while it is imported. Not an ``Exception``, so that no handler in the script catches it."""


def main_script() -> MainScript | None:
    """The main script of this process. None for an interactive session, ``python -c``, standard input, and installed commands."""
    main = sys.modules.get("__main__")
    if main is None:
        return None
    # Objects that come back from workers may name the module so.
    sys.modules.setdefault(NAME, main)
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        ours = name.startswith("treadle.") or name == "__main__" or name.endswith(".__main__")
        return None if ours else MainScript(name, None, list(sys.argv))
    path = getattr(main, "__file__", None)
    if not isinstance(path, str) or not os.path.isfile(path):
        return None
    path = os.path.abspath(path)
    if os.path.dirname(path) == os.path.abspath(sysconfig.get_path("scripts")):
        return None
    return MainScript(None, path, list(sys.argv))


_importing = False


def import_main_script(script: MainScript) -> str:
    """Run the script as ``__mp_main__``, which is ``__main__`` from now on. Returns what went wrong, for its author, or nothing."""
    global _importing
    main = ModuleType(NAME)
    where = script.module or str(script.path)
    sys.argv[:] = script.arguments
    before = sys.modules["__main__"]
    _importing = True
    try:
        code = _code(script, main)
        sys.modules["__main__"] = sys.modules[NAME] = main
        exec(code, main.__dict__)
    except StartedWhileImported as error:
        return f"{where} starts {error} without `if __name__ == \"__main__\":` before it; worker processes import the script up to there"
    except BaseException as error:
        if not main.__dict__.get("__builtins__"):
            sys.modules["__main__"] = before
        return f"worker processes could import only a part of {where}: {type(error).__name__}: {error}"
    finally:
        _importing = False
    return ""


def _code(script: MainScript, main: ModuleType) -> CodeType:
    main.__dict__["__file__"] = script.path
    if script.module is None:
        assert script.path is not None
        with open(script.path, "rb") as file:
            return compile(file.read(), script.path, "exec", dont_inherit=True)
    spec = find_spec(script.module)
    get_code: Callable[[str], CodeType | None] | None = getattr(getattr(spec, "loader", None), "get_code", None)
    code = get_code(script.module) if get_code is not None else None
    if spec is None or code is None:
        raise ImportError(f"there is no module {script.module}")
    main.__dict__.update(__file__=spec.origin, __package__=spec.parent)
    return code


def not_while_imported(what: str) -> None:
    """Called where a program starts something that must not start again in each of its worker processes."""
    if _importing:
        raise StartedWhileImported(what)


