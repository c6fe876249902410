"""Progress and balance: clusters without broken streams, judged while they work. No worker that could go on stands idle, nothing piles up.

A second kind of scenario beside that of ``trial``, with a generator of its own. ``python -m treadle.testing.simulation --balance`` runs it.
"""
