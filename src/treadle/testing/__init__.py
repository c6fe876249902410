"""Helpers for tests: scenes of the cores, and whole simulated clusters."""
