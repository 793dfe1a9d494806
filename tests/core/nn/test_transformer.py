"""Attention with a cache agrees with attention over all tokens at once."""

from __future__ import annotations

import pytest
import torch

from worldflux.nn.cache import KeyValueCache
from worldflux.nn.transformer import Attention, Block, CausalTransformer

B, N, D, W = 3, 9, 8, 12


@pytest.fixture(scope="module")
def transformer() -> CausalTransformer:
    torch.manual_seed(0)
    return CausalTransformer(2, D, 2, W).eval()


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(B, N, D, generator=torch.Generator().manual_seed(seed))


def fed(model: CausalTransformer, x: torch.Tensor, pieces: list[int]) -> torch.Tensor:
    cache = model.cache(len(x), x)
    return torch.cat([model(piece, cache) for piece in x.split(pieces, 1)], 1)


@pytest.mark.parametrize("pieces", [[9], [1] * 9, [4, 1, 1, 3]])
@pytest.mark.parametrize("grad", [True, False])
def test_pieces_with_a_cache_equal_the_whole(
    transformer: CausalTransformer, pieces: list[int], grad: bool
) -> None:
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(
            fed(transformer, tokens(), pieces), transformer(tokens()), atol=1e-5, rtol=1e-5
        )


def test_gradients_through_a_cache_equal_those_of_the_whole(transformer: CausalTransformer) -> None:
    x, y = tokens().requires_grad_(), tokens().requires_grad_()
    fed(transformer, x, [2, 1, 6]).square().sum().backward()
    transformer(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=1e-4, rtol=1e-4)


def test_a_token_does_not_see_later_ones(transformer: CausalTransformer) -> None:
    x, y = tokens(), tokens()
    y[:, 5] *= -1
    before, after = transformer(x), transformer(y)
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.allclose(
        before[:, 5], after[:, 5]
    )
    everything = torch.ones(N, N, dtype=torch.bool)
    assert not torch.allclose(transformer(x, mask=everything)[:, 0], before[:, 0])


@pytest.mark.parametrize("grad", [True, False])
def test_rows_may_hold_different_numbers_of_tokens(
    transformer: CausalTransformer, grad: bool
) -> None:
    x = tokens()
    with torch.set_grad_enabled(grad):
        whole = transformer(x)
        cache = transformer.cache(B, x)
        transformer(x[:, :4], cache)
        cache = cache.emptied(torch.tensor([False, True, False]))
        assert cache.offset is None
        mixed = torch.stack([x[0, 4:7], x[1, :3], x[2, 4:7]])
        found = transformer(mixed, cache)
        expected = torch.stack([whole[0, 4:7], whole[1, :3], whole[2, 4:7]])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert cache.length.tolist() == [7, 3, 7]


@pytest.mark.parametrize("grad", [True, False])
def test_the_tensors_a_cache_was_made_of_stay(transformer: CausalTransformer, grad: bool) -> None:
    x = tokens()
    with torch.set_grad_enabled(grad):
        cache = transformer.cache(B, x)
        transformer(x[:, :4], cache)
        kept = cache.tensors()
        copies = {name: tensor.clone() for name, tensor in kept.items()}
        transformer(x[:, 4:], KeyValueCache.of(kept))
        assert all(torch.equal(kept[name], copies[name]) for name in kept)


def test_where_takes_whole_rows(transformer: CausalTransformer) -> None:
    x = tokens()
    one, other = transformer.cache(B, x), transformer.cache(B, x)
    transformer(x[:, :4], one)
    transformer(x[:, :2], other)
    found = one.where(torch.tensor([True, False, True]), other)
    assert found.length.tolist() == [4, 2, 4]
    assert torch.equal(found.keys[1][1], other.keys[1][1])


def test_a_full_cache_is_refused(transformer: CausalTransformer) -> None:
    cache = transformer.cache(B, tokens())
    transformer(tokens(), cache)
    with pytest.raises(ValueError, match="holds 9 of 12 tokens: there is no room for 4 more"):
        transformer(tokens()[:, :4], cache)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="dim=8 is not a multiple of heads=3"):
        Attention(8, 3)


def test_a_block_sees_both_ways_unless_it_is_told() -> None:
    torch.manual_seed(0)
    block, x, y = Block(D, 2).eval(), tokens(), tokens()
    y[:, -1] *= -1
    assert not torch.allclose(block(x)[:, 0], block(y)[:, 0])
    torch.testing.assert_close(block(x, causal=True)[:, 0], block(y, causal=True)[:, 0])


def test_dropout_works_in_training_alone() -> None:
    torch.manual_seed(0)
    model = CausalTransformer(1, D, 2, W, dropout=0.5)
    assert not torch.equal(model(tokens()), model(tokens()))
    model.eval()
    assert torch.equal(model(tokens()), model(tokens()))
