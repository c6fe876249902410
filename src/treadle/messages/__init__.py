"""The vocabulary: wire protocol, input of the state machines, and documentation in one. No behaviour."""
