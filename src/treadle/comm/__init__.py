"""Bytes between processes: frames, the handshake, transports. Nothing here knows a message."""
