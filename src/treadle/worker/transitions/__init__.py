"""The worker's core: events in, ``WorkerOutbox`` out. No I/O, no clock, no threads."""
