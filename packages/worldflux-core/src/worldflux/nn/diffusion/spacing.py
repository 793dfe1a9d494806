"""Which steps of discrete diffusion a shorter process takes. No torch."""

from __future__ import annotations

from worldflux.errors import ContractError


def kept_steps(steps: int, spacing: str) -> list[int]:
    """Which of `steps` steps a shorter process takes, ascending.

    "5" takes five, evenly spaced, the first and the last included; "10,5" ten of the first half
    and five of the second; "ddim5" five at a whole distance, from the first on; "" all of them.
    """
    if not spacing:
        return list(range(steps))
    if spacing.startswith("ddim"):
        wanted = int(spacing.removeprefix("ddim"))
        for distance in range(1, steps):
            if len(range(0, steps, distance)) == wanted:
                return list(range(0, steps, distance))
        raise ContractError(f"No whole distance takes {wanted} of {steps} diffusion steps.")
    counts = [int(part) for part in spacing.split(",")]
    found: list[int] = []
    begin = 0
    for i, count in enumerate(counts):
        size = steps // len(counts) + (i < steps % len(counts))
        if not 1 <= count <= size:
            raise ContractError(
                f"Spacing {spacing!r} takes {count} of {size} diffusion steps: ask for 1 to {size}."
            )
        apart = (size - 1) / max(count - 1, 1)
        place = 0.0  # summed, then rounded half to even: which steps are taken depends on it
        for _ in range(count):
            found.append(begin + round(place))
            place += apart
        begin += size
    return found
