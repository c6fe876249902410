"""Leaf helpers, one subject per file. Nothing here knows what a task is."""
