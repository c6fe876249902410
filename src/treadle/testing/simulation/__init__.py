"""Whole clusters of the pure cores on a simulated network: no socket, no thread, no clock, one seed for everything.

``python -m treadle.testing.simulation --seeds 1000`` looks for a seed that fails; ``--first K --seeds 1`` replays it exactly.
"""
