"""User values <-> frames. Only clients, workers and nannies use this room; the scheduler passes payloads through unread."""
