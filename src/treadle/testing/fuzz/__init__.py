"""Odd values from registered parties: the core refuses them, or takes them, and never fails. ``python -m treadle.testing.fuzz``."""
