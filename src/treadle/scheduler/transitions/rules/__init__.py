"""One file for each state that a task can come to."""
