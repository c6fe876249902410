"""An append-only log in a directory that survives the process: a file format, no meaning."""
