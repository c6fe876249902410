"""The supervisor of a worker process: starts it, watches it, starts another."""
