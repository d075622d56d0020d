"""The page of `python -m augkit.preview`: both pictures with their captions in one self-contained HTML file."""

from __future__ import annotations

from augkit.core.html import render
from augkit.core.images import png_source

SHEET_CAPTION = (
    "Rows: each op of the policy alone, then all of them composed and resampled once. Columns: strength, which scales"
    " the range; at 0 every image is the original bit for bit. Nothing is random here: all draws of an op have the"
    " stated quantile, and the op is applied to the image. A flip has a single draw, which decides whether it is"
    " applied; there that draw has the quantile."
)
KERNEL_CAPTION = (
    "From the top: a detail after a shift by half a pixel along x and y; after the same shift back; the difference"
    " from the original; the log power spectrum of the whole shifted image, frequency 0 in the middle, half Nyquist"
    " dashed; and the factor by which each frequency along one axis is multiplied. The percentage is the share of the"
    " energy of white noise between half Nyquist and Nyquist that is kept. Measured on a torus, so that borders have no"
    " effect. Nearest keeps every frequency because it moves by whole pixels only: here it is wrong by half a pixel,"
    " and the round trip ends a pixel away. Fourier is exact below Nyquist; at Nyquist itself, a frequency that even"
    " sizes have, a real image has no phase to shift."
)


def preview_page(title: str, policy_yaml: str, notes: list[str], sheet: bytes, kernels: bytes, command: str) -> str:
    """Return the page as one HTML file that opens offline.

    Args:
        title: title of the image.
        policy_yaml: the policy in full.
        notes: sentences about the resampling and the size of the image.
        sheet, kernels: the two pictures, as the bytes of PNG files.
        command: the command that repeats the preview.
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
