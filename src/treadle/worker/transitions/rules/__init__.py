"""The rules that bring a task to each of its states, one subject per file."""
