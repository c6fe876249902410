"""Whole clusters of the pure cores on a simulated network: no socket, no thread, no clock, one seed for everything.

``python -m treadle.testing.simulation --seeds 1000`` looks for a seed that fails and makes its scenario as small as it can;
``--replay SEED`` runs one again exactly, and prints what happens.
"""
