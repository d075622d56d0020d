"""The effect of each interpolation kernel on an image shifted by half a pixel: the numbers, and their figure.

All numbers are measured on images shifted by `augkit.resample`, not computed from formulas, and on a torus, so that
borders have no effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.kernels import KERNELS
from augkit.augment.resample import resample
from augkit.core.figures import BLACK, BLUE, GRAY, ORANGE, STYLE

DETAIL = 28  # pixels of the side of the detail
LARGEST = 511  # pixels of a side of the part of the image that is used; odd for the reason below
IMPULSE = 255  # samples; odd, so that no frequency lies at Nyquist, where a real signal has no phase
DIFFERENCE_GAIN = 4.0


@dataclass(frozen=True)
class HalfPixel:
    """Measurements of one kernel for a shift by half a pixel along x and y.

    Attributes:
        kernel: name of the kernel.
        shifted: the shifted image ``(C, H, W)``, in [0, 1] before clipping.
        returned: the image ``(C, H, W)`` after shifting back.
        psnr: peak signal-to-noise ratio of ``returned`` in dB; infinite for a perfect reconstruction.
        response: the magnitude response ``(F,)`` at `frequencies`.
        kept: the share of the energy of white noise above half Nyquist that is kept, along the axis of the shift.
    """

    kernel: str
    shifted: Tensor
    returned: Tensor
    psnr: float
    response: Tensor
    kept: float


def frequencies() -> Tensor:
    """The frequencies of a response, ``(F,)``, in cycles per pixel from 0 to just below Nyquist, 0.5."""
    return torch.fft.rfftfreq(IMPULSE)


def magnitude_response(kernel: str, shift: float = 0.5) -> Tensor:
    """The factor ``(F,)`` by which a shift by ``shift`` pixels scales each of `frequencies`."""
    impulse = torch.zeros(1, 1, 1, IMPULSE, dtype=torch.float64)
    impulse[..., IMPULSE // 2] = 1
    return torch.fft.rfft(shift_by(impulse, kernel, (shift, 0.0))).abs().flatten()


def shift_by(images: Tensor, kernel: str, pixels: tuple[float, float]) -> Tensor:
    """``images`` ``(B, C, H, W)`` shifted by ``pixels`` ``(x, y)`` on the torus."""
    matrix = geometry.shift(torch.tensor([pixels], dtype=images.dtype, device=images.device))
    return resample(images, matrix.expand(len(images), 3, 3), kernel=kernel, padding="circular")


def psnr(first: Tensor, second: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1]; infinite where they agree."""
    error = float((first.double() - second.double()).square().mean())
    return -10 * math.log10(error) if error > 0 else math.inf


def half_pixel(image: Tensor, kernel: str) -> HalfPixel:
    """Measure ``kernel`` on ``image`` ``(C, H, W)`` uint8."""
    original = image[None].to(torch.float32) / 255
    shifted = shift_by(original, kernel, (0.5, 0.5))
    returned = shift_by(shifted, kernel, (-0.5, -0.5))
    response = magnitude_response(kernel)
    above = frequencies() > 0.25
    kept = float(response[above].square().mean())
    return HalfPixel(kernel, shifted[0].cpu(), returned[0].cpu(), psnr(original, returned), response, kept)


def part_of(image: Tensor) -> Tensor:
    """Return the center of ``image`` ``(C, H, W)``, at most `LARGEST` pixels a side."""
    top, left = (max(0, (n - LARGEST) // 2) for n in image.shape[-2:])
    return image[:, top : top + LARGEST, left : left + LARGEST]


def busiest_window(image: Tensor, side: int = DETAIL) -> tuple[int, int, int, int]:
    """``top, left, height, width`` of the window of ``image`` ``(C, H, W)`` whose neighbors differ most."""
    gray = image.to(torch.float32).mean(0)
    height, width = (min(side, n) for n in gray.shape)
    change = torch.zeros_like(gray)
    change[1:] += gray.diff(dim=0).square()
    change[:, 1:] += gray.diff(dim=1).square()
    energy = F.avg_pool2d(change[None, None].cpu(), (height, width), stride=1)[0, 0]
    top, left = divmod(int(energy.argmax()), energy.shape[1])
    return top, left, height, width


def spectrum(image: Tensor) -> np.ndarray:
    """Log power ``(H, W)`` in dB of the mean of the channels, frequency 0 in the middle, with a Hann window."""
    gray = image.to(torch.float64).mean(0)
    for dim in (0, 1):
        window = torch.hann_window(gray.shape[dim] + 2, periodic=False, dtype=torch.float64)[1:-1]
        gray = gray * (window[:, None] if dim == 0 else window)
    power = torch.fft.fftshift(torch.fft.fft2(gray)).abs().square()
    return (10 * torch.log10(power + 1e-12)).numpy()


def kernel_figure(image: Tensor, results: list[HalfPixel]) -> Figure:
    """One column per kernel after the original's: detail, round trip, what it lost, spectrum, response."""
    original = image.to(torch.float32).cpu() / 255
    top, left, height, width = busiest_window(image)
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    columns = len(results) + 1
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, hspace=0.01, wspace=0.01)
    with mpl.rc_context({**STYLE, "axes.grid": False, "axes.titlelocation": "center"}):
        figure = Figure(figsize=(1.75 * columns + 0.3, 9.4), layout=layout)
        axes = figure.subplots(5, columns, squeeze=False)
    _label_rows(axes[:, 0])
    _show(axes[0, 0], original[window])
    axes[0, 0].set_title("original")
    _show_text(axes[1, 0], f"detail:\n{width} × {height} px,\nwhere the image\nis busiest")
    _show_text(axes[2, 0], f"gray: nothing\nlost\n\ndifferences are\nmultiplied by {DIFFERENCE_GAIN:g}")
    power = spectrum(original)
    limits = (float(np.quantile(power, 0.02)), float(power.max()))
    _show_spectrum(axes[3, 0], power, limits)
    _show_text(axes[4, 0], "across: frequency,\ncycles per pixel\n\ndashed: half Nyquist;\n%: energy kept\nabove it")
    for column, result in zip(axes.T[1:], results, strict=True):
        column[0].set_title(result.kernel)
        _show(column[0], result.shifted[window])
        _show(column[1], result.returned[window])
        column[1].set_xlabel("exact" if result.psnr > 100 else f"PSNR {result.psnr:.1f} dB")
        _show(column[2], 0.5 + DIFFERENCE_GAIN * (result.returned - original)[window])
        _show_spectrum(column[3], spectrum(result.shifted), limits)
        _draw_response(column[4], result)
    axes[4, 1].set_yticks([0, 0.5, 1], ["0", "½", "1"])
    return figure


def kernel_results(image: Tensor) -> list[HalfPixel]:
    """Return `half_pixel` for every kernel."""
    return [half_pixel(image, kernel) for kernel in KERNELS]


def _label_rows(axes: np.ndarray) -> None:
    titles = ("shifted by ½ px", "there and back", "lost on the way", "spectrum, shifted", "magnitude response")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_ylabel(title, fontweight="bold")


def _show(axes: Axes, image: Tensor) -> None:
    pixels = image.clamp(0, 1)
    pixels = pixels if pixels.shape[0] == 3 else pixels[:1].expand(3, -1, -1)
    axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
    _frame(axes)


def _show_spectrum(axes: Axes, power: np.ndarray, limits: tuple[float, float]) -> None:
    low, high = ([np.fft.fftshift(np.fft.fftfreq(n))[k] for n in power.shape] for k in (0, -1))
    half_y, half_x = (0.5 / n for n in power.shape)
    extent = (low[1] - half_x, high[1] + half_x, high[0] + half_y, low[0] - half_y)
    axes.imshow(power, cmap="magma", vmin=limits[0], vmax=limits[1], extent=extent, aspect="equal")
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    axes.add_patch(mpl.patches.Rectangle((-0.25, -0.25), 0.5, 0.5, fill=False, ec="white", lw=0.8, ls="--"))
    _frame(axes)


def _show_text(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=8.5, color="#666666")
    _frame(axes)
    axes.spines[["left", "bottom"]].set_visible(False)


def _frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_response(axes: Axes, result: HalfPixel) -> None:
    color = ORANGE if result.kernel == "nearest" else BLUE
    axes.axhline(1, color=GRAY, lw=0.6)
    axes.axvline(0.25, color=BLACK, lw=0.8, ls="--")
    axes.fill_between(frequencies(), result.response, color=color, alpha=0.18, lw=0)
    axes.plot(frequencies(), result.response, color=color, lw=1.6)
    axes.set_xlim(0, 0.5)
    axes.set_ylim(0, 1.15)
    axes.set_box_aspect(1)
    axes.set_xticks([0, 0.25, 0.5], ["0", "¼", "½"])
    axes.set_yticks([])
    axes.set_xlabel(f"{100 * result.kept:.0f} % kept")
