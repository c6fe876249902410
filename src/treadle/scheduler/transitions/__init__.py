"""The scheduler's pure core: events in, outbox out. No I/O, no clock, no thread, no randomness."""
