"""Pure functions that read the state of the cluster and say what should be done; nothing here changes it."""
