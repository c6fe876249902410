"""Runs with real processes that are killed, stopped and cut off at random: ``python -m treadle.testing.chaos``."""
