"""``submit``, ``map``, ``get``, ``compute``, ``persist``."""
