"""Parties that come back, and what a scheduler of before has left."""
