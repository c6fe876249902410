"""What brings a task to each of its states, one subject a file."""
