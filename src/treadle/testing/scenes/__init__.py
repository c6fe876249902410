"""Transcripts of races as text that people read, played against the real cores. See ``script`` for the format. No I/O."""
