"""What can be plugged in: interfaces, and the registry of features."""
