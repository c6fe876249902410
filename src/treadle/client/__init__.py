"""The user's half: futures, submission of calls and graphs, and collection of results."""
