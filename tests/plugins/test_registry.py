"""Factories by name."""

import pytest

from treadle.plugins import registry


def test_the_last_registration_counts(monkeypatch):
    monkeypatch.setattr(registry, "_factories", {})
    with pytest.raises(LookupError, match="'loom'"):
        registry.factory("loom")
    registry.register_factory("loom", lambda: 1)
    registry.register_factory("loom", lambda: 2)
    assert registry.factory("loom")() == 2
