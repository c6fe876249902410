"""``uvloop.install()``: every loop that a program makes from then on is one of uvloop's, all but the one of blocking clients."""

import pytest


@pytest.fixture(autouse=True)
def needed(need):
    need("uvloop")


PROGRAM = """
    import asyncio, warnings
    import uvloop
    from treadle import Client

    async def main():
        async with Client(n_workers=1, threads_per_worker=1, asynchronous=True{options}) as client:
            print(type(asyncio.get_running_loop()).__module__, await client.submit(pow, 2, 5))

    if __name__ == "__main__":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of Python want uvloop.run()
            uvloop.install()
        {body}
"""
BLOCKING = """
        with Client(n_workers=1, threads_per_worker=1{options}) as client:
            print(client.submit(pow, 2, 5).result())
"""


@pytest.mark.parametrize("options", ["", ", processes=False", ", processes=False, protocol='tcp'"])
def test_blocking_clients(run_script, options):
    assert run_script(PROGRAM.format(body=BLOCKING.strip().format(options=options), options="")) == ("32\n", "")


@pytest.mark.parametrize("options", ["", ", processes=False, protocol='tcp'"])
def test_asynchronous_clients(run_script, options):
    assert run_script(PROGRAM.format(body="asyncio.run(main())", options=options)) == ("uvloop 32\n", "")


def test_worker_processes_may_run_on_it(run_script):
    text = """
        import asyncio, dask
        from treadle import Client

        async def kind():
            return type(asyncio.get_running_loop()).__module__

        if __name__ == "__main__":
            with dask.config.set({"distributed.admin.event-loop": "uvloop"}):
                with Client(n_workers=1, threads_per_worker=1) as client:
                    print(client.submit(kind).result())
    """
    assert run_script(text) == ("uvloop\n", "")
