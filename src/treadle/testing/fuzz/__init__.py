"""Registered parties send odd values: the core refuses or accepts them, and never fails. ``python -m treadle.testing.fuzz``."""
