"""Calls and graphs as rows of messages: keys, functions, payloads, order."""
