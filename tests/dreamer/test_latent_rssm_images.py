"""The latent RSSM's image networks, and what they make of pixels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from worldflux.errors import ContractError
from worldflux_dreamer.latent_rssm.images import ImageDecoder, ImageEncoder, PixelToMap, quantised


def test_pixels_are_cut_to_their_bits() -> None:
    image = torch.arange(256, dtype=torch.uint8)
    five = quantised(image, 5)
    assert len(five.unique()) == 32
    torch.testing.assert_close(five[:8], torch.full((8,), 0.5 / 32))
    spread = quantised(image, 5, torch.rand(256))
    assert bool(((spread >= 0) & (spread < 1)).all())
    torch.testing.assert_close((spread * 32).floor(), (five * 32).floor())
    torch.testing.assert_close(quantised(image, 8), image.float() / 255)
    torch.testing.assert_close(quantised(five, 3), five)


def test_image_networks_have_the_papers_shapes() -> None:
    encoder, decoder = (
        ImageEncoder((3, 64, 64), 4, "relu"),
        ImageDecoder(10, (3, 64, 64), 4, "relu"),
    )
    assert encoder(torch.randn(2, 3, 64, 64)).shape == (2, 2 * 2 * 8 * 4)
    assert decoder(torch.randn(2, 10)).shape == (2, 3, 64, 64)
    assert [m.kernel_size[0] for m in decoder if hasattr(m, "kernel_size")] == [5, 5, 6, 6]


def test_other_image_sizes_are_refused() -> None:
    with pytest.raises(ContractError, match=r"\(3, 84, 84\) does not fit.*option size=64"):
        ImageEncoder((3, 84, 84), 4, "relu")


def test_one_pixel_is_a_matrix_product_with_the_result_of_the_convolution() -> None:
    layer, x = PixelToMap(6, 4, 5, 2), torch.randn(3, 6, 1, 1)
    plain = F.conv_transpose2d(x, layer.weight, layer.bias, 2)
    torch.testing.assert_close(layer(x), plain)
    inputs, upstream = [layer.weight, layer.bias], torch.randn_like(plain)
    ours = torch.autograd.grad(layer(x), inputs, upstream)
    torch.testing.assert_close(ours, torch.autograd.grad(plain, inputs, upstream))


def test_the_order_of_channels_in_memory_changes_nothing() -> None:
    encoder, image = ImageEncoder((3, 64, 64), 4, "relu"), torch.randn(2, 3, 64, 64)
    plain = torch.nn.Sequential(*encoder)(image)
    torch.testing.assert_close(encoder(image), plain)
    torch.testing.assert_close(encoder(image.contiguous(memory_format=torch.channels_last)), plain)
