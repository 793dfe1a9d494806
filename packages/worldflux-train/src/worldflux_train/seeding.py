"""Every seed, derived from the run's one seed by the role it has."""

from __future__ import annotations

import zlib

import numpy as np


def derived(seed: int, role: str, *more: int) -> int:
    """A seed (31 bits) for `role`; other roles and numbers give unrelated ones."""
    entropy = (seed, zlib.crc32(role.encode()), *more)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0]) & 0x7FFFFFFF
