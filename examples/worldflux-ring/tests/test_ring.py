import torch

from worldflux import create_world_model
from worldflux.core.batch import Batch
from worldflux.testing import check_family


def test_passes_the_checks_of_worldflux() -> None:
    assert "check_slots_take_effect" in check_family("ring")


def test_learns_to_turn() -> None:
    """A point that turns by its action is predicted after a few hundred updates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_world_model("ring", obs_shape=(2,), action_dim=1)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        losses: list[float] = []
        for _ in range(300):
            loss = model.loss(turning(batch=16, length=8)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def turning(batch: int, length: int) -> Batch:
    """Episodes in which the action is the angle to turn by and the reward the new height."""
    action = torch.rand(batch, length, 1) * 2 - 1
    turned = torch.cat([torch.rand(batch, 1) * 6.28, action[:, :-1, 0]], 1).cumsum(1)  # (B, T)
    first = torch.zeros(batch, length, dtype=torch.bool)
    first[:, 0] = True
    never = torch.zeros_like(first)
    return Batch(
        obs={"state": torch.stack([turned.cos(), turned.sin()], -1)},
        action=action,
        reward=turned.sin().masked_fill(first, 0.0),
        is_first=first,
        is_last=never,
        is_terminal=never,
    )
