"""An opt-in pytest module: one test per check, for the family your fixture names.

In a test file of yours: define a session fixture `worldflux_family` that returns an id such as
`"ring:small"`, then `from worldflux.testing.conformance import *`.
"""

from __future__ import annotations

from worldflux.testing.family import check_family

__all__ = ["test_worldflux_family"]


def test_worldflux_family(worldflux_family: str) -> None:
    """Every conformance check of WorldFlux passes."""
    assert "check_slots_take_effect" in check_family(worldflux_family)
