"""The vector quantiser: choice, gradients, moving code-books, revival, starts."""

from __future__ import annotations

import pytest
import torch

from worldflux.core.rand import Rand
from worldflux.nn.vector_quantizer import (
    Match,
    MovingQuantizer,
    VectorQuantizer,
    kmeans,
    perplexity,
)


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quantizer(match: Match = "distance") -> VectorQuantizer:
    found = VectorQuantizer(7, 3, match)
    found.replace(vectors(7, 3, seed=1) * torch.arange(1, 8)[:, None], torch.arange(7))
    return found


def test_distance_chooses_the_nearest_row() -> None:
    own, z = quantizer(), vectors(4, 5, 3)
    apart = (z[..., None, :] - own.codebook).square().sum(-1)
    assert torch.equal(own.indices(z), apart.argmin(-1))
    torch.testing.assert_close(own.scores(z), -apart)


@pytest.mark.parametrize("match", ["inner", "cosine"])
def test_directions_do_not_depend_on_the_length_of_the_input(match: Match) -> None:
    own, z = quantizer(match), vectors(4, 5, 3)
    assert torch.equal(own.indices(z), own.indices(z * 37))
    assert not torch.equal(quantizer("inner").indices(z), quantizer("cosine").indices(z))


def test_the_gradient_goes_straight_through_and_each_loss_moves_one_side() -> None:
    own, z = quantizer(), vectors(4, 3).requires_grad_()
    found = own(z)
    torch.testing.assert_close(found.output, own.codebook[found.index])
    found.output.mul(torch.arange(12.0).view(4, 3)).sum().backward()
    assert torch.equal(z.grad, torch.arange(12.0).view(4, 3)) and own.codebook.grad is None
    z.grad = None
    own(z).codebook_loss().sum().backward()
    assert z.grad is None and own.codebook.grad is not None
    own.codebook.grad = None
    own(z).commitment_loss().sum().backward()
    assert z.grad is not None and own.codebook.grad is None


def test_a_forced_choice_is_taken() -> None:
    own, z = quantizer(), vectors(4, 3)
    index = torch.tensor([0, 0, 1, 2])
    assert torch.equal(own(z, index).chosen, own.codebook[index])


def test_choices_are_made_in_float32_under_bf16() -> None:
    own, z = quantizer(), vectors(64, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(own.indices(z), quantizer().indices(z))
        assert own.scores(z).dtype == torch.float32


def test_a_moving_codebook_is_no_parameter_and_follows_its_inputs() -> None:
    own = MovingQuantizer(4, 3, rate=0.5)
    assert not list(own.parameters()) and {"codebook", "used", "moves"} <= own.state_dict().keys()
    own.replace(torch.eye(3), torch.arange(3))
    own.move(torch.tensor([[0.0, 5.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 0]))
    half = torch.tensor([1.0, 1.0, 0.0]) / 2**0.5
    torch.testing.assert_close(own.codebook[0], half)  # half of the way, then of length one
    torch.testing.assert_close(own.codebook[1], torch.eye(3)[1])  # towards nothing: the length back
    torch.testing.assert_close(own.codebook.norm(dim=-1), torch.ones(4))
    assert int(own.moves) == 1 and float(own.used[0]) > float(own.used[1])


def test_rows_hardly_used_are_replaced_by_inputs() -> None:
    own, inputs = MovingQuantizer(4, 3), torch.nn.functional.normalize(vectors(8, 3), dim=-1)
    own.used.copy_(torch.tensor([0.9, 0.08, 0.02, 0.0]))
    kept = own.codebook[:2].clone()
    assert int(own.revive(inputs, Rand.seeded(0))) == 2
    assert torch.equal(own.codebook[:2], kept)
    for row in own.codebook[2:]:
        assert (inputs == row).all(-1).any()
    assert not own.expired().any() and int(own.revive(inputs)) == 0


def test_entropy_and_perplexity_count_evenly_used_codes() -> None:
    own = MovingQuantizer(8, 3)
    torch.testing.assert_close(own.entropy(), torch.tensor(3.0))
    torch.testing.assert_close(perplexity(torch.arange(6).repeat(3), 8), torch.tensor(6.0))
    torch.testing.assert_close(perplexity(torch.zeros(5).long(), 8), torch.tensor(1.0))


def test_kmeans_finds_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = (centres[:, None] + 0.1 * vectors(3, 20, 2)).flatten(0, 1)
    found = kmeans(x, 3, rand=Rand.seeded(0))
    assert torch.cdist(found, centres).min(0).values.max() < 0.2
    assert kmeans(x[:2], 3, rand=Rand.seeded(0)).isfinite().all()  # fewer vectors than centres
