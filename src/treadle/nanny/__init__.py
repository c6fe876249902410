"""The supervisor of a worker process: starts it, watches it, replaces it."""
