"""Clusters: a scheduler and its workers, started and stopped together."""
