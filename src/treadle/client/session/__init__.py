"""The stream to the scheduler: what a client knows of its keys, what it has to say, and how it comes back."""
