"""The page of `python -m augkit.preview`: both pictures with their captions in one self-contained HTML file."""

from __future__ import annotations

from augkit.core.html import render
from augkit.core.images import png_source

SHEET_CAPTION = (
    "Down: each op of the policy alone, then all of them composed and resampled once. Across: strength, which scales"
    " the range; at 0 every image is the original bit for bit. Nothing is random here: all draws of an op stand at"
    " the stated quantile, and its coin has chosen the image. A flip is nothing but its coin, so there the coin"
    " itself stands at the quantile."
)
KERNEL_CAPTION = (
    "From the top: a detail after a shift by half a pixel along x and y; after the same shift back; what the round"
    " trip lost; the log power spectrum of the whole shifted image, frequency 0 in the middle, half Nyquist dashed;"
    " and the factor by which each frequency along one axis is multiplied. The share is what is kept of the energy"
    " of white noise between half Nyquist and Nyquist. Measured on a torus, so that borders play no part. Nearest"
    " keeps every frequency because it moves by whole pixels only: it is half a pixel wrong here, either way, and"
    " the trip there and back ends a pixel away. Fourier is exact below Nyquist; at Nyquist itself, a frequency that"
    " even sizes have, a real image has no phase to shift."
)


def preview_page(title: str, policy_yaml: str, notes: list[str], sheet: bytes, kernels: bytes, command: str) -> str:
    """One HTML file that opens offline.

    Args:
        title: what the picture is.
        policy_yaml: the policy in full.
        notes: sentences on what was done to the image before.
        sheet, kernels: the two pictures, as PNG files hold them.
        command: what repeats them.
    """
    return render(
        "preview/preview.html",
        title=f"augkit preview: {title}",
        subject=title,
        notes=" ".join(notes),
        policy_yaml=policy_yaml,
        sheet=png_source(sheet),
        sheet_caption=SHEET_CAPTION,
        kernels=png_source(kernels),
        kernel_caption=KERNEL_CAPTION,
        command=command,
    )
