"""The cluster as a whole: questions about it, and orders to its servers."""
