"""The commands: dask-scheduler and dask-worker."""
