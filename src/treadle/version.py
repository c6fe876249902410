"""The version, for those below the package's own front."""

__version__ = "0.1.0"
