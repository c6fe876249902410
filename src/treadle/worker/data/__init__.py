"""Where a worker keeps values."""
