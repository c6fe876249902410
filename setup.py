"""Builds the pure cores with mypyc where a C compiler is there; everything else of the package is in pyproject.toml.

TREADLE_COMPILE=0 leaves them interpreted, =1 makes a failure to compile an error; unset, they are compiled if possible
(an editable install stays interpreted, so that an edit takes effect).
"""

from __future__ import annotations

import os
import sys
import tempfile
from glob import glob
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext

#: One compiled unit, so that calls between its modules are direct: what gains by it (docs/adr/0002), and pure code only.
COMPILED = [
    "src/treadle/scheduler/transitions/**/*.py",
    "src/treadle/client/rows/order.py",
    "src/treadle/utils/keys.py",
]
BUILDING = {"bdist_wheel", "build", "build_ext", "editable_wheel", "install"}
EDITABLE = {"develop", "editable_wheel"}


def say(text: str) -> None:
    print(f"treadle: {text}", file=sys.stderr, flush=True)


class BuildCores(build_ext):
    """Builds the extension; a failure is an error only if compiled cores were required."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            if os.environ.get("TREADLE_COMPILE") == "1":
                raise
            say(f"the cores could not be compiled ({error}); they stay INTERPRETED")
            self.extensions = []


def main() -> None:
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCores})


def extensions() -> list[Any]:
    mode = os.environ.get("TREADLE_COMPILE", "")
    if mode not in ("", "0", "1"):
        raise SystemExit(f"treadle: TREADLE_COMPILE must be 0, 1 or unset, not {mode!r}")
    commands = set(sys.argv)
    if not commands & BUILDING:
        return []  # asked for metadata only
    if mode == "0":
        say("TREADLE_COMPILE=0: the cores stay INTERPRETED")
        return []
    if mode == "" and commands & EDITABLE:
        say("an editable install: the cores stay INTERPRETED (TREADLE_COMPILE=1 compiles them)")
        return []
    if mode == "" and (why := cannot_compile()):
        say(f"{why}; the cores stay INTERPRETED. To have them fast: install a C compiler and Python's headers, then reinstall")
        return []
    return compiled_cores(required=mode == "1")


def compiled_cores(required: bool) -> list[Any]:
    """mypyc's translation of the cores. Without any: none if not ``required``, else the build ends."""
    found = {path for pattern in COMPILED for path in glob(pattern, recursive=True)}
    sources = sorted(path for path in found if Path(path).name != "__init__.py")
    try:
        from mypyc.build import mypycify

        # No configuration file: the build must not depend on which stubs are installed beside mypy.
        options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", "--no-warn-no-return"]
        unit: list[Any] = mypycify(options + sources, opt_level="3", multi_file=False, separate=False, group_name="treadle")
    except (Exception, SystemExit) as error:  # mypyc exits when mypy finds fault
        if required:
            raise
        say(f"mypyc could not translate the cores ({error!r}); they stay INTERPRETED")
        return []
    if os.name == "posix":
        for extension in unit:  # mypyc asks for -Werror; another compiler's new warning must not fail an installation
            extension.extra_compile_args.append("-Wno-error")
    say(f"{len(sources)} modules of the cores are COMPILED")
    return unit


def cannot_compile() -> str | None:
    """Why a C extension cannot be built here, or None: found out by building a small one."""
    from setuptools import Distribution, Extension

    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "probe.c")
        source.write_text("#include <Python.h>\nPyMODINIT_FUNC PyInit_probe(void) { return NULL; }\n")
        distribution = Distribution({"name": "probe", "ext_modules": [Extension("probe", [str(source)])]})
        command = build_ext(distribution)
        command.build_lib = command.build_temp = directory
        try:
            command.ensure_finalized()
            command.run()
        except (Exception, SystemExit) as error:
            return f"no working C compiler ({error})"
    return None


main()
