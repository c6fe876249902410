"""The worker: a pure core that decides (``transitions``) and the shell that executes, stores, fetches and serves."""
