"""Pixels normalised by the data: a small thing that moves counts as much as a large one."""

from __future__ import annotations

import torch

from worldflux.nn.pixels import Pixels, unit


def moving_dot() -> torch.Tensor:
    """Frames (8, 1, 8, 8) of bytes: a grey ground with one bright pixel somewhere in a row."""
    frames = torch.full((8, 1, 8, 8), 40, dtype=torch.uint8)
    frames[torch.arange(8), 0, 3, torch.arange(8)] = 200
    return frames


def test_what_is_given_is_as_published_and_no_part_of_a_model() -> None:
    frames = moving_dot()
    plain = Pixels((1, 8, 8), whiten=False)
    torch.testing.assert_close(plain(frames), 2 * unit(frames) - 1)
    assert torch.equal(Pixels((1, 8, 8), False, mean=0.0, scale=1.0)(frames), unit(frames))
    assert not plain.state_dict()
    assert set(Pixels((1, 8, 8), whiten=True).state_dict()) == {"mean", "scale"}


def test_the_dot_outweighs_the_ground() -> None:
    frames, fitted = moving_dot(), Pixels((1, 8, 8), whiten=True)
    fitted.fit(frames)
    seen = fitted(frames)
    assert float(seen.mean(0).abs().max()) < 1e-5
    row = seen[:, 0, 3]
    assert float(row[torch.arange(8), torch.arange(8)].min()) > 1  # where the dot is
    ground = torch.cat([seen[:, 0, :3], seen[:, 0, 4:]], 1)
    assert float(ground.abs().max()) < 1e-4
    torch.testing.assert_close(fitted.back(seen), unit(frames))
