"""dask.distributed is installed, and somebody imports it: its defaults are in dask's configuration then."""

from importlib.util import find_spec
from pathlib import Path

import dask.config
import pytest
import yaml

from treadle import config

PROGRAM = """
    {before}
    from treadle import Client
    {after}

    if __name__ == "__main__":
        with Client(n_workers=1, threads_per_worker=1) as client:
            print(client.submit(pow, 2, 5).result(), "distributed" in __import__("sys").modules)
"""


def data_file(name):
    """Its text, without an import of the package into this process."""
    return Path(find_spec("distributed").submodule_search_locations[0], name).read_text()


@pytest.fixture(autouse=True)
def needed(need):
    need("distributed")


@pytest.mark.parametrize("before, after", [("import distributed", ""), ("", "import distributed"), ("import dask.distributed", "")])
def test_workers_start_and_nothing_is_said(run_script, before, after):
    assert run_script(PROGRAM.format(before=before, after=after)) == ("32 True\n", "")


def test_a_configuration_that_was_copied_from_its_defaults_is_silent(run_script, tmp_path):
    defaults = data_file("distributed.yaml")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "distributed.yaml").write_text(defaults)
    printed, said = run_script(PROGRAM.format(before="", after=""), environment={"DASK_CONFIG": str(tmp_path / "config")})
    assert (printed, said) == ("32 False\n", "")


def test_what_a_user_sets_and_nobody_reads_is_one_line(run_script):
    environment = {"DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "0.5", "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "fork"}
    printed, said = run_script(PROGRAM.format(before="import distributed", after=""), environment=environment)
    assert printed == "32 True\n"
    (line,) = said.splitlines()
    assert "distributed.worker.memory.spill: 0.5" in line and "'fork'" in line


def test_a_client_of_its_own_beside_ours(run_script):
    printed, said = run_script("""
        import distributed, treadle

        if __name__ == "__main__":
            with distributed.Client(processes=False, dashboard_address=None, n_workers=1) as theirs:
                with treadle.Client(n_workers=1, threads_per_worker=1) as ours:
                    print(theirs.submit(pow, 2, 3).result(), ours.submit(pow, 2, 4).result())
    """)
    assert printed == "8 16\n" and said == ""


def examples(schema):
    """Values that a part of the schema allows."""
    if "enum" in schema:
        yield from schema["enum"]
    for part in schema.get("oneOf", ()):
        yield from examples(part)
    kinds = schema.get("type", ())
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        least, most = schema.get("minimum"), schema.get("maximum")
        if kind == "null":
            yield None
        elif kind == "boolean":
            yield from (True, False)
        elif kind in ("integer", "number"):
            yield from (value for value in (least, most, 1) if value is not None)
            if kind == "number" and most is None:
                yield float("inf")
        elif kind == "array":
            yield []
        elif kind == "object":
            yield {}


def leaves(schema, prefix=""):
    if schema.get("properties"):
        for name, part in schema["properties"].items():
            yield from leaves(part, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, schema


#: A text may be anything as far as the schema says; these are what the keys of each kind may be.
TEXTS = {"timeout": "30s", "interval": "2s", "ttl": "5 minutes", "heartbeat": "5s", "duration": "500ms", "connect": "30s", "tcp": "1m"}
SIZES = ("bandwidth", "limit", "threshold", "size")


def texts(key):
    for ending, text in TEXTS.items():
        if key.endswith(ending):
            return [text]
    return ["10 MB"] if key.endswith(SIZES) else ["tcp"]


def test_every_value_that_its_schema_allows_is_accepted():
    schema = yaml.safe_load(data_file("distributed-schema.yaml"))
    tried = 0
    for key, part in leaves(schema):
        kinds = part.get("type", ())
        values = list(examples(part)) + (texts(key) if "string" in ([kinds] if isinstance(kinds, str) else kinds) else [])
        assert values, key
        for value in values:
            tried += 1
            with dask.config.set({key: value}):
                try:
                    config.scheduler_settings(), config.worker_settings(), config.nanny_settings()
                    config.client_settings(), config.comm_settings(), config.event_loop_kind(), config.log_settings()
                except Exception as error:
                    raise AssertionError(f"{key}: {value!r} is refused: {error}") from error
    assert tried > 150
