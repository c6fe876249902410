"""User values <-> frames. Only clients, workers and nannies come here; the scheduler passes payloads through unread."""
