"""Leaf helpers, one subject a file; nothing here knows what a task is."""
