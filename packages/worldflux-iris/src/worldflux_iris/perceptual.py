"""The perceptual loss (LPIPS, 1801.03924), whose network is not part of this package."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from torch import Tensor

from worldflux.errors import CapabilityError

HOW = (
    "Install it with `pip install 'worldflux-iris[lpips]'` (it fetches VGG16's weights when it is "
    "first used), or train without it: model.perceptual=0."
)
Network = Callable[[Tensor, Tensor], Tensor]


def require() -> None:
    """Raise `CapabilityError` unless the package `lpips` is there."""
    if find_spec("lpips") is None:
        raise CapabilityError(
            f"The perceptual loss needs the package lpips, which is not installed. {HOW}"
        )


class Perceptual:
    """How different two images look to VGG16; no module, as its weights are nobody's to train."""

    def __init__(self, network: Network | None = None) -> None:
        self.network = network

    def __call__(self, image: Tensor, other: Tensor) -> Tensor:
        """Distances (N,) of images (N, 3, Y, X) in [-1, 1], which is the range LPIPS takes."""
        if self.network is None:
            self.network = _vgg(image)
        return self.network(image, other).flatten()


def _vgg(like: Tensor) -> Network:
    require()
    import lpips

    network = lpips.LPIPS(net="vgg", verbose=False).eval().requires_grad_(False).to(like.device)
    found: Network = network
    return found
