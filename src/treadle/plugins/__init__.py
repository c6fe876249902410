"""What others may plug in: interfaces, and the registry of features."""
