"""Clusters: a scheduler and workers, started and stopped together."""
