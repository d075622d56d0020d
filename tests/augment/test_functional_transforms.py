"""`torch.func` over the functions: vmap, grad, jacobians, and vmap of those, each against a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacfwd, jacrev, vmap

from augkit import Augment, RandomSubpixelShift, fourier_shift, resample, shift_blur
from augkit.augment import geometry
from augkit.augment.kernels import HALF_WIDTH
from augkit.core.errors import InputError

SIZE, COUNT = (12, 14), 4


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


IMAGES = torch.rand(COUNT, 2, 3, *SIZE, generator=seeded())
PIXELS = torch.rand(COUNT, 2, generator=seeded()) * 4 - 2
SCALES = 0.6 + torch.rand(COUNT, 2, generator=seeded())
MATRICES = {
    "aligned": geometry.axis_aligned(SCALES[:, 0], PIXELS[:, 0], SCALES[:, 1], PIXELS[:, 1]),
    "turned": geometry.rotate(PIXELS[:, 0] * 20, SIZE),
    "shifted": geometry.shift(PIXELS),
}
CASES = [*((name, kernel) for name in MATRICES for kernel in HALF_WIDTH), ("shifted", "fourier")]


def loop(act: Callable[..., Any], *given: Tensor) -> Tensor:
    return torch.stack([act(*one) for one in zip(*given, strict=True)])


def act_of(kernel: str) -> Callable[[Tensor, Tensor], Tensor]:
    padding = "circular" if kernel == "fourier" else "reflection"
    return lambda images, matrix: resample(images, matrix, kernel=kernel, padding=padding)


@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_vmap_over_images_over_matrices_and_over_both(name: str, kernel: str) -> None:
    matrices, act = MATRICES[name], act_of(kernel)
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(vmap(act)(IMAGES, matrices), loop(act, IMAGES, matrices), **close)
    by_image = vmap(act, in_dims=(0, None))(IMAGES, matrices[0])
    torch.testing.assert_close(by_image, loop(lambda x: act(x, matrices[0]), IMAGES), **close)
    by_matrix = vmap(act, in_dims=(None, 2))(IMAGES[0], matrices.movedim(0, 2))
    torch.testing.assert_close(by_matrix, loop(lambda m: act(IMAGES[0], m), matrices), **close)

    def single(image: Tensor, matrix: Tensor) -> Tensor:
        return act(image[None], matrix)[0]

    nested = vmap(vmap(single, in_dims=(0, None)))(IMAGES, matrices)
    torch.testing.assert_close(nested, loop(act, IMAGES, matrices), **close)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "sinc"])
@pytest.mark.parametrize("name", ["aligned", "turned"])
def test_vmap_of_gradients_and_jacobians(name: str, kernel: str) -> None:
    matrices, images = MATRICES[name].double(), IMAGES.double()

    def loss(images: Tensor, rows: Tensor) -> Tensor:
        matrix = torch.cat([rows, torch.tensor([[0.0, 0, 1]], dtype=rows.dtype)])
        return resample(images, matrix, kernel=kernel, padding="border").square().mean()

    rows = matrices[:, :2]
    for k in (0, 1):
        recorded = [x.clone().requires_grad_() for x in (images, rows)]
        sum(loss(*one) for one in zip(*recorded, strict=True)).backward()
        assert recorded[k].grad is not None
        torch.testing.assert_close(vmap(grad(loss, argnums=k))(images, rows), recorded[k].grad)
    backwards = jacrev(loss, argnums=1)(images[0], rows[0])
    torch.testing.assert_close(vmap(jacrev(loss, argnums=1))(images[:1], rows[:1])[0], backwards)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_forward_jacobians() -> None:
    def act(matrix: Tensor) -> Tensor:
        return resample(IMAGES[0].double(), matrix)

    matrix = MATRICES["aligned"][0].double()
    torch.testing.assert_close(jacfwd(act)(matrix), jacrev(act)(matrix))


def test_vmap_of_the_others() -> None:
    torch.testing.assert_close(vmap(fourier_shift)(IMAGES, PIXELS), loop(fourier_shift, IMAGES, PIXELS))
    torch.testing.assert_close(vmap(shift_blur)(IMAGES, PIXELS), loop(shift_blur, IMAGES, PIXELS))
    integers = (IMAGES * 255).to(torch.uint8)
    assert torch.equal(vmap(resample)(integers, MATRICES["turned"]), loop(resample, integers, MATRICES["turned"]))
    large = torch.rand(2, 1, 2, 70, 80)
    torch.testing.assert_close(
        vmap(resample)(large, MATRICES["shifted"][:2]), loop(resample, large, MATRICES["shifted"][:2])
    )


def test_vmap_of_a_replay_and_of_draws() -> None:
    augment = Augment(RandomSubpixelShift(1.0))
    masks = torch.randint(0, 5, (COUNT, 2, 1, *SIZE), generator=seeded())

    def act(images: Tensor, masks: Tensor, matrix: Tensor) -> Tensor:
        out = augment(images, masks=masks, matrix=matrix)
        return torch.cat([out.images, out.masks], dim=1)

    for matrices in (MATRICES["shifted"], MATRICES["turned"]):
        torch.testing.assert_close(vmap(act)(IMAGES, masks, matrices), loop(act, IMAGES, masks, matrices))
    still = IMAGES[:1].expand(COUNT, 2, 3, *SIZE)
    drawn = vmap(augment, randomness="different")(still)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-2)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.full((3, 3), torch.nan), "expected finite numbers"),
        (torch.diag(torch.tensor([0.0, 1, 1])), "expected an invertible matrix"),
        (torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 1]]), "whose horizon lies outside"),
    ],
)
def test_bad_matrices_are_refused_inside_vmap(matrix: Tensor, message: str) -> None:
    matrices = torch.stack([torch.eye(3), matrix])
    with pytest.raises(InputError, match=message):
        vmap(resample)(IMAGES[:2], matrices)
