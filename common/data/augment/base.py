"""What a step of an augmentation is."""

import torch
from torch import Tensor


class AugmentationStep:
    """One random change a sample, made on a whole batch at once, drawn for each sample by itself.

    A step overrides `matrix`, `change` or `mix`, or, where geometry and values are drawn together,
    `both`; what it does not override draws nothing and changes nothing. Pictures are (B, 3, H, W)
    of 0 to 255, uint8 or float32.

    Attributes:
        exact: its geometry moves pixels by whole ones alone, and mirrors.
        after_geometry: it changes the new picture: the geometry before it is made first.
        mixes: it mixes pictures with each other.
    """

    exact = False
    after_geometry = False
    mixes = False

    def matrix(self, images: Tensor, generator: torch.Generator) -> Tensor | None:
        """Geometry, as a matrix a sample: float32 (B, 3, 3); see `geometry`."""
        return None

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The pixels' values: pictures in and out, of the same shape."""
        return images

    def both(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The pictures with their values changed, and the matrices of the geometry."""
        return self.change(images, generator), self.matrix(images, generator)

    def mix(
        self, images: Tensor, shares: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Pictures, float32, and labels as shares of the classes (B, C), in and out."""
        return images, shares
