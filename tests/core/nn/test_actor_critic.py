"""Returns and the policy's loss against slow, obvious references."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical

from worldflux.nn.actor_critic import before_end, lambda_returns, reinforce

B, H, GAMMA, LAM = 4, 6, 0.9, 0.7


def sequence() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    own = torch.Generator().manual_seed(0)
    ended = torch.zeros(B, H)
    ended[1, 2] = ended[3, 5] = 1
    return torch.randn(B, H, generator=own), ended, torch.randn(B, H, generator=own)


def slow(reward: list[float], ended: list[float], after: list[float], t: int = 0) -> float:
    if ended[t]:
        return reward[t]
    rest = (
        after[t] if t == H - 1 else (1 - LAM) * after[t] + LAM * slow(reward, ended, after, t + 1)
    )
    return reward[t] + GAMMA * rest


def test_lambda_returns_equal_their_definition() -> None:
    rows = sequence()
    found = lambda_returns(*rows, GAMMA, LAM)
    for b in range(B):
        expected = [slow(*(x[b].tolist() for x in rows), t) for t in range(H)]
        torch.testing.assert_close(found[b], torch.tensor(expected))


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_the_two_ends_of_lambda(lam: float) -> None:
    reward, _, value = sequence()
    found = lambda_returns(reward, torch.zeros(B, H), value, GAMMA, lam)
    if lam == 0:
        torch.testing.assert_close(found, reward + GAMMA * value)
    else:
        powers = GAMMA ** torch.arange(H)
        torch.testing.assert_close(found[:, 0], reward @ powers + GAMMA**H * value[:, -1])


def test_after_a_cut_the_return_bootstraps() -> None:
    reward, ended, value = sequence()
    cut = torch.zeros(B, H)
    cut[0, 1] = 1
    found = lambda_returns(reward, ended, value, GAMMA, LAM, cut)
    torch.testing.assert_close(found[0, 1], reward[0, 1] + GAMMA * value[0, 1])
    later = reward.clone()
    later[0, 2:] += 5  # rewards behind it change nothing before it
    assert torch.equal(lambda_returns(later, ended, value, GAMMA, LAM, cut)[0, :2], found[0, :2])


def test_steps_after_the_first_end_do_not_count() -> None:
    ended = torch.tensor([[0, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
    assert before_end(ended).int().tolist() == [[1, 1, 1, 0, 0], [1] * 5, [1, 0, 0, 0, 0]]
    assert torch.equal(before_end(ended.bool()), before_end(ended.float()))


def test_the_policys_terms() -> None:
    logits = torch.randn(B, H, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    action, gain = torch.arange(B * H).view(B, H) % 5, sequence()[0].requires_grad_()
    terms, own = reinforce(logits, action, gain, 0.01), Categorical(logits=logits)
    torch.testing.assert_close(terms["policy"], -own.log_prob(action) * gain.detach())
    torch.testing.assert_close(terms["entropy"], -0.01 * own.entropy())
    (terms["policy"] + terms["entropy"]).sum().backward()
    assert logits.grad is not None and gain.grad is None
