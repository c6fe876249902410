"""xarray writes and reads with a client open."""

import os

import pytest

PROGRAM = """
    import warnings
    import dask.array as da
    import numpy as np
    import xarray as xr
    from treadle import Client

    warnings.simplefilter("ignore")

    if __name__ == "__main__":
        with Client(n_workers=2, threads_per_worker=2, processes={processes}):
            values = da.arange(10_000, chunks=500).reshape(100, 100).rechunk(25)
            data = xr.Dataset({{"a": (("x", "y"), values)}})
            {body}
"""
ZARR = """
            data.to_zarr("data.zarr")
            print(int(xr.open_zarr("data.zarr").a.sum().compute()))
"""
DELAYED = """
            data.to_zarr("data.zarr", compute=False).compute()
            print(int(xr.open_zarr("data.zarr").a.sum().compute()))
"""


@pytest.mark.parametrize(("processes", "body"), [(True, ZARR), (False, DELAYED)], ids=["at_once", "delayed"])
def test_to_zarr(need, run_script, processes, body):
    need("xarray", "zarr")
    assert run_script(PROGRAM.format(processes=processes, body=body.strip())) == ("49995000\n", "")


NETCDF = """
            data.to_netcdf("data.nc", engine="{engine}")
            print(int(xr.open_dataset("data.nc", engine="{engine}", chunks={{}}).a.sum().compute()))
            data.to_netcdf("more.nc", engine="{engine}", compute=False).compute()
            print(int(xr.load_dataset("more.nc", engine="{engine}").a.sum()))
"""


@pytest.mark.parametrize(("processes", "engine", "modules"), [(True, "netcdf4", ["netCDF4"]), (False, "netcdf4", ["netCDF4"])])
def test_to_netcdf(need, run_script, tmp_path, processes, engine, modules):
    need("xarray", *modules)
    body = NETCDF.format(engine=engine).strip()
    assert run_script(PROGRAM.format(processes=processes, body=body)) == ("49995000\n49995000\n", "")
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".lock")]
