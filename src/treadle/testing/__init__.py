"""Helpers for tests: scenes of the scheduler's core, and whole simulated clusters."""
