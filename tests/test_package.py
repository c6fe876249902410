"""What ``import treadle`` gives, and what it costs."""

import subprocess
import sys
from importlib.machinery import ExtensionFileLoader

import pytest

import treadle
from treadle.scheduler.transitions import machine


def loaded_by(code):
    """Names of the modules that are loaded after the code has run in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    path = [entry for entry in sys.path if entry]
    script = f"import sys; sys.path[:0] = {path!r}\n" + script
    return set(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split())


def test_importing_treadle_loads_next_to_nothing():
    loaded = loaded_by("import treadle")
    assert not loaded & {"dask", "numpy", "pandas", "tornado", "bokeh", "distributed", "asyncio", "msgspec"}
    assert {name for name in loaded if name.startswith("treadle.")} == {"treadle.plugins", "treadle.plugins.registry", "treadle.version"}


@pytest.mark.parametrize("code", ["from treadle import Client, LocalCluster, Worker, Nanny, Scheduler", "import treadle.nanny.child"])
def test_no_part_of_it_loads_data_libraries(code):
    assert not loaded_by(code) & {"numpy", "pandas", "pyarrow", "tornado", "bokeh", "distributed", "matplotlib"}


@pytest.mark.parametrize("name", treadle.__all__)
def test_every_public_name_is_there(name):
    assert getattr(treadle, name) is not None
    assert name in dir(treadle)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        treadle.nothing  # noqa: B018


def test_compiled_is_true_to_what_is_loaded():
    assert treadle.compiled is isinstance(machine.__spec__.loader, ExtensionFileLoader)
