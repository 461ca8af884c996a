"""What cameras, weather and map makers do to a picture: batched augmentation in torch, CPU or GPU.

Every function takes and returns ``[N, 3, H, W]`` float RGB in 0..1 and draws one setting for each image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Generator, Tensor
from torchvision.transforms.functional import to_pil_image

from training.data.recipe import jpeg, to_tensor

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    """Draw ``[N, 1, 1, 1]`` numbers, on the generator's device."""
    return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator, device=generator.device)


def augment(images: Tensor, generator: Generator, *, strength: float = 1.0) -> Tensor:
    """Do all of the below, in the order in which light, lens, sensor and file do them."""
    images = season(images, generator, strength=strength)
    images = shade(images, generator, strength=strength)
    images = colour(images, generator, strength=strength)
    images = haze(images, generator, strength=strength)
    images = blur(images, generator, strength=strength)
    images = noise(images, generator, strength=strength)
    return images.clamp(0, 1)


def season(images: Tensor, generator: Generator, *, strength: float) -> Tensor:
    """Let leaves turn and soils dry: channels mix, by up to 25 % each, so that the darker may become the lighter."""
    n = images.shape[0]
    mix = torch.rand(n, 3, 3, generator=generator, device=generator.device) - 0.5
    mixed = torch.eye(3, device=images.device) + 0.5 * strength * uniform(n, 0, 1, generator)[:, 0] * mix
    return torch.einsum("nij,njhw->nihw", mixed, images)


def shade(images: Tensor, generator: Generator, *, strength: float) -> Tensor:
    """Add cloud shadows and vignetting: a smooth brightness field, up to ±30 %."""
    n = images.shape[0]
    field = torch.rand(n, 1, 4, 4, generator=generator, device=generator.device) - 0.5
    field = F.interpolate(field, images.shape[-2:], mode="bicubic", align_corners=False)
    return images * (1 + 0.6 * strength * uniform(n, 0, 1, generator) * field)


def colour(images: Tensor, generator: Generator, *, strength: float) -> Tensor:
    """Change exposure, white balance, contrast, saturation and gamma: another camera, season or map provider."""
    n = images.shape[0]
    gain = 1 + strength * (torch.rand(n, 3, 1, 1, generator=generator, device=generator.device) - 0.5) * 0.3
    images = images * gain * (1 + strength * uniform(n, -0.3, 0.3, generator))
    grey = (images * images.new_tensor(_LUMA)[None, :, None, None]).sum(1, keepdim=True)
    images = grey + (images - grey) * (1 + strength * uniform(n, -0.7, 0.5, generator))
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + strength * uniform(n, -0.4, 0.6, generator))
    return images.clamp(1e-3, 1) ** torch.exp(strength * uniform(n, -0.5, 0.5, generator))


def haze(images: Tensor, generator: Generator, *, strength: float) -> Tensor:
    """Lay a veil of up to 30 % white over a third of the images."""
    n = images.shape[0]
    veil = strength * uniform(n, 0, 0.3, generator) * (uniform(n, 0, 1, generator) < 0.33)
    return images * (1 - veil) + 0.85 * veil


def blur(images: Tensor, generator: Generator, *, strength: float, taps: int = 7) -> Tensor:
    """Blur half of the images with a Gaussian of σ 0 to 1.6 px (defocus, over-zoomed maps)."""
    n = images.shape[0]
    sigma = 0.05 + 1.55 * strength * uniform(n, 0, 1, generator) * (uniform(n, 0, 1, generator) < 0.5)
    x = torch.arange(taps, device=images.device) - taps // 2
    kernel = torch.exp(-(x**2) / (2 * sigma.view(n, 1) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = F.pad(images.reshape(1, n * 3, *images.shape[-2:]), (taps // 2,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n * 3)
    return F.conv2d(flat, kernel[:, None, None, :], groups=n * 3).reshape(images.shape)


def noise(images: Tensor, generator: Generator, *, strength: float) -> Tensor:
    """Add sensor noise of σ 0 to 0.04."""
    sigma = strength * uniform(images.shape[0], 0, 0.04, generator)
    return images + sigma * torch.randn(images.shape, generator=generator, device=images.device)


def recolour(images: Tensor, generator: Generator, *, share: float) -> Tensor:
    """Give some images the colours of another of the batch: mean and spread of each channel (Reinhard et al., 2001).

    Half-way at random, in RGB: another provider's balance and season, of those that there really are.
    """
    if share == 0:
        return images
    n = images.shape[0]
    amount = uniform(n, 0.3, 1, generator) * (uniform(n, 0, 1, generator) < share)
    model = images[torch.randperm(n, generator=generator)]
    mean, spread = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True).clamp(min=0.02)
    theirs = (images - mean) / spread * model.std((2, 3), keepdim=True) + model.mean((2, 3), keepdim=True)
    return (images + amount * (theirs - images)).clamp(0, 1)


def compress(images: Tensor, generator: Generator, *, share: float, quality: tuple[int, int]) -> Tensor:
    """Show some images as JPEG files of a random quality do."""
    shown = images.clone()
    for i in torch.nonzero(uniform(len(images), 0, 1, generator).flatten() < share).flatten().tolist():
        drawn = int(torch.randint(quality[0], quality[1] + 1, (), generator=generator))
        shown[i] = to_tensor(jpeg(to_pil_image(images[i].clamp(0, 1)), drawn))
    return shown
