"""The CPU twin agrees with the device transform, serialises, and its workers are seeded."""

from __future__ import annotations

import json
import pickle

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset

import augkit
from augkit.augment import albumentations_twin as twins
from augkit.core.errors import InputError

FULL = {
    "shift": {"max_pixels": 3.0},
    "rescale": {"max_factor": 1.3},
    "crop": {"min_area": 0.5, "p": 0.7},
    "flip": {"p": 0.5},
}
SHAPE, SIZE = (29, 36), (24, 31)
BOXES = np.array([[2, 3, 30, 20], [0, 0, 36, 29], [20.5, 10.25, 33, 28]], np.float32)
POINTS = np.array([[17.0, 14.0], [18.25, 13.5]], np.float32)


def policy(**changes: object) -> augkit.Policy:
    return augkit.Policy(**{**FULL, **changes})  # type: ignore[arg-type]


def photograph(dtype: type, shape: tuple[int, ...] = (*SHAPE, 3)) -> np.ndarray:
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    return (values * 255).astype(np.uint8) if dtype is np.uint8 else values.astype(dtype)


def drawn(compose: A.Compose, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A result of the twin and the matrix that it drew."""
    return compose(image=image)["image"], compose.transforms[0].params["matrix"]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection", "circular"])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos3", "sinc"])
def test_one_matrix_gives_one_image(kernel: str, padding: str, dtype: type) -> None:
    chosen = policy(kernel=kernel, padding=padding)
    twin, augment, image = chosen.albumentations(SIZE, seed=1), chosen.augment(SIZE), photograph(dtype)
    for _ in range(3):
        got, matrix = drawn(twin, image)
        batch = torch.from_numpy(image).permute(2, 0, 1)[None]
        expected = augment(batch, matrix=torch.from_numpy(matrix)[None])[0].permute(1, 2, 0).numpy()
        assert got.shape == expected.shape == (*SIZE, 3)
        assert got.dtype == dtype
        assert np.abs(got.astype(float) - expected.astype(float)).max() <= (1 if dtype is np.uint8 else 1e-3)


def test_fourier_and_blur_control() -> None:
    image = photograph(np.float32)
    shift = augkit.Policy(shift={"max_pixels": 2.0}, kernel="fourier", padding="circular")  # type: ignore[arg-type]
    got, matrix = drawn(shift.albumentations(seed=0), image)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = augkit.fourier_shift(batch, torch.from_numpy(matrix[:2, 2]))
    np.testing.assert_allclose(got, expected[0].permute(1, 2, 0).numpy(), atol=1e-6)

    control = augkit.Policy(shift={"max_pixels": 2.0, "blur_only": True})  # type: ignore[arg-type]
    twin = control.albumentations(seed=0)
    got, matrix = drawn(twin, image)
    blur = torch.from_numpy(twin.transforms[0].params["blur"])
    np.testing.assert_array_equal(matrix, np.eye(3))
    expected = augkit.shift_blur(batch, blur, kernel=control.kernel, padding=control.padding)
    np.testing.assert_allclose(got, expected[0].permute(1, 2, 0).numpy(), atol=1e-6)


def test_distribution_is_that_of_the_device_transform() -> None:
    chosen = policy()
    twin = chosen.albumentations(SIZE, seed=3).transforms[0]
    drawn_matrices = [twin.get_params_dependent_on_data({"shape": SHAPE}, {})["matrix"] for _ in range(600)]
    ours = torch.from_numpy(np.stack(drawn_matrices))
    theirs = chosen.augment(SIZE).sample(20_000, SHAPE, generator=torch.Generator().manual_seed(0))
    for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)):
        a, b = ours[:, row, column], theirs[:, row, column]
        gap = (a[:, None] <= b.sort().values[::200]).float().mean(0) - torch.linspace(0, 1, 100)
        assert gap.abs().max() < 0.09  # Kolmogorov-Smirnov: 1.63 / sqrt(600) at 1 %, and the coarse grid


def test_targets_follow_as_on_the_device() -> None:
    chosen = policy(crop=None, shift={"max_pixels": 1.0})
    bbox = A.BboxParams("pascal_voc", label_fields=["labels"], min_width=0, min_height=0, min_visibility=0.3)
    keep = A.KeypointParams("xy", remove_invisible=False)
    twin = chosen.albumentations(bbox_params=bbox, keypoint_params=keep, seed=5)
    augment = chosen.augment()
    image = photograph(np.uint8)
    mask = np.random.default_rng(1).integers(0, 1 << 20, SHAPE).astype(np.int32)
    for _ in range(5):
        out = twin(image=image, mask=mask, masks=[mask], bboxes=BOXES, keypoints=POINTS, labels=[0, 1, 2])
        expected = augment(
            torch.from_numpy(image).permute(2, 0, 1)[None],
            masks=torch.from_numpy(mask)[None, None],
            boxes=torch.from_numpy(BOXES)[None],
            keypoints=torch.from_numpy(POINTS)[None],
            matrix=torch.from_numpy(twin.transforms[0].params["matrix"])[None],
        )
        assert expected.boxes_valid.all()
        np.testing.assert_array_equal(out["mask"], expected.masks[0, 0].numpy())
        np.testing.assert_array_equal(out["masks"][0], expected.masks[0, 0].numpy())
        np.testing.assert_allclose(out["bboxes"], expected.boxes[0].numpy(), atol=1e-3)
        np.testing.assert_allclose(out["keypoints"], expected.keypoints[0].numpy(), atol=1e-3)


def test_keypoint_angle_and_scale() -> None:
    transform = twins.PolicyTransform({"flip": {"p": 1.0}})
    point = np.array([[3.0, 4.0, 0.0, 0.3, 2.0]], np.float32)
    flip = np.array([[-2, 0, 9], [0, 2, 0], [0, 0, 1]], np.float32)
    moved = transform.apply_to_keypoints(point, matrix=flip)
    np.testing.assert_allclose(moved, [[3.0, 8.0, 0.0, np.pi - 0.3, 4.0]], atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "opencv"])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 1), (*SHAPE, 7)])
def test_any_number_of_channels_is_kept(shape: tuple[int, ...], backend: str) -> None:
    for chosen in (policy(kernel="bilinear"), policy(kernel="bilinear", rescale=None, crop=None)):
        twin = chosen.albumentations(SIZE, backend=backend, seed=0)  # type: ignore[arg-type]
        out = twin(image=photograph(np.uint8, shape))["image"]
        assert out.shape == (*(SIZE if chosen.crop else SHAPE), *shape[2:])


def quarter_turn(**fields: object) -> A.Compose:
    turn = {"op": "RandomRotation", "degrees": [90.0, 90.0], "p": 1.0}
    return A.Compose(
        [twins.PolicyTransform({"shift": {"max_pixels": 0.5}, "ops": [turn], **fields})],
        bbox_params=A.BboxParams("pascal_voc", label_fields=["labels"]),
        keypoint_params=A.KeypointParams("xyas", angle_in_degrees=True),
        seed=0,
    )


def test_targets_follow_kornias_ops() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[4:10, 20:28] = 255
    given = {"mask": image[..., 0], "bboxes": [[20, 4, 28, 10]], "labels": [0], "keypoints": [(23.5, 6.5, 0.0, 2.0)]}
    out = quarter_turn()(image=image, **given)
    y, x = np.nonzero(out["image"][..., 0] > 128)
    np.testing.assert_allclose(out["bboxes"][0], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=0.6)
    assert ((out["mask"] > 0) == (out["image"][..., 0] > 128)).mean() > 0.98
    center_x, center_y, angle, scale = out["keypoints"][0]
    assert abs(center_x - x.mean()) < 0.6
    assert abs(center_y - y.mean()) < 0.6
    assert angle == pytest.approx(270, abs=0.1)  # y points down, and Kornia turns to the left
    assert scale == pytest.approx(2.0)


def test_boxes_that_leave_between_the_ops_are_dropped() -> None:
    for seed in range(20):
        pipeline = quarter_turn(shift={"max_pixels": 40.0})
        pipeline.set_random_seed(seed)
        out = pipeline(image=np.zeros((32, 32, 3), np.uint8), bboxes=[[20, 4, 28, 10]], labels=[0], keypoints=[])
        for x0, y0, x1, y1 in out["bboxes"]:
            assert x1 > x0
            assert y1 > y0


@pytest.mark.parametrize("name", ["ColorJiggle", "RandomGaussianNoise", "RandomPlasmaShadow", "RandomRotation"])
def test_kornias_ops_are_seeded_serialised_and_replayed(name: str) -> None:
    arguments = {"ColorJiggle": {"brightness": [0.5, 1.5]}, "RandomRotation": {"degrees": 30.0}}.get(name, {})
    fields = {"shift": {"max_pixels": 0.5, "p": 0.5}, "ops": [{"op": name, "p": 1.0, **arguments}]}
    twin, image = A.Compose([twins.PolicyTransform(fields)], seed=4), photograph(np.uint8)
    first, again, other = (twins.PolicyTransform(fields) for _ in range(3))
    for transform, seed in ((first, 4), (again, 4), (other, 5)):
        transform.set_random_seed(seed)
    results = [transform(image=image)["image"] for transform in (first, again, other)]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()
    copy = A.from_dict(json.loads(json.dumps(A.to_dict(twin))))
    copy.set_random_seed(4)
    twin.set_random_seed(4)
    np.testing.assert_array_equal(copy(image=image)["image"], twin(image=image)["image"])
    replay = A.ReplayCompose([twins.PolicyTransform(fields)])
    out = replay(image=image)
    np.testing.assert_array_equal(A.ReplayCompose.replay(out["replay"], image=image)["image"], out["image"])


def test_an_op_of_kornia_is_applied_with_its_p() -> None:
    fields = {"shift": {"max_pixels": 1.0, "p": 0.5}, "ops": [{"op": "RandomInvert", "p": 1.0}]}
    pipeline, dark = A.Compose([twins.PolicyTransform(fields)], seed=0), np.zeros((8, 8, 3), np.uint8)
    assert all(pipeline(image=dark)["image"].mean() > 128 for _ in range(20))
    half = A.Compose([twins.PolicyTransform({**fields, "strength": 0.5})], seed=0)
    assert 60 < sum(half(image=dark)["image"].mean() > 128 for _ in range(200)) < 140


def test_targets_that_cannot_follow_are_refused() -> None:
    elastic = A.Compose([twins.PolicyTransform({"ops": [{"op": "RandomElasticTransform", "p": 1.0}]})])
    image = photograph(np.float32)
    assert elastic(image=image)["image"].shape == image.shape
    with pytest.raises(
        InputError, match=r"\APolicyTransform: masks.* cannot follow Kornia's RandomElasticTransform, which"
    ):
        elastic(image=image, mask=image)
    elastic.add_targets({"labels": "mask"})
    with pytest.raises(InputError, match="cannot follow Kornia's RandomElasticTransform"):
        elastic(image=image, labels=image)
    with pytest.raises(InputError, match=r"without worker_ops, got InvertImg; use policy\.albumentations\(\)"):
        twins.PolicyTransform({"worker_ops": [{"op": "InvertImg", "p": 1.0}]})
    inverted = augkit.Policy(worker_ops=[{"op": "InvertImg", "p": 1.0}]).albumentations()  # type: ignore[list-item]
    np.testing.assert_allclose(inverted(image=image)["image"], 1 - image)


def test_no_boxes_and_no_keypoints() -> None:
    bbox = A.BboxParams("pascal_voc", label_fields=["labels"])
    twin = policy().albumentations(SIZE, bbox_params=bbox, keypoint_params=A.KeypointParams("xy"))
    out = twin(image=photograph(np.uint8), bboxes=[], labels=[], keypoints=[])
    assert len(out["bboxes"]) == len(out["keypoints"]) == 0


def test_batches_and_videos_share_one_draw() -> None:
    images = np.stack([photograph(np.uint8)] * 3)
    out = policy().albumentations(SIZE, seed=0)(images=images)["images"]
    assert out.shape == (3, *SIZE, 3)
    assert (out == out[:1]).all()


@pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV 4 places pixels to 1/32")
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_opencv_backend_gives_the_same_image(dtype: type) -> None:
    chosen = policy(kernel="bilinear", padding="reflection", rescale=None, crop=None)
    image = photograph(dtype)
    ours, theirs = (chosen.albumentations(backend=b, seed=2) for b in ("torch", "opencv"))  # type: ignore[arg-type]
    for _ in range(5):
        a, b = drawn(ours, image)[0], drawn(theirs, image)[0]
        assert np.abs(a.astype(float) - b.astype(float)).max() <= (1 if dtype is np.uint8 else 1e-3)


def test_identity_is_bitwise_and_input_is_kept() -> None:
    image = photograph(np.float32)
    before = image.copy()
    out = policy(strength=0.0).albumentations()(image=image)["image"]
    np.testing.assert_array_equal(out, before)
    policy().albumentations(seed=0)(image=image)
    np.testing.assert_array_equal(image, before)


def test_serialises_and_pickles() -> None:
    twin = policy(padding="border").albumentations(SIZE, bbox_params=A.BboxParams("pascal_voc"), seed=7)
    image = photograph(np.uint8)
    copies = [A.from_dict(json.loads(json.dumps(A.to_dict(twin)))), pickle.loads(pickle.dumps(twin))]
    for copy in copies:
        assert isinstance(copy, A.Compose)
        assert copy.transforms[0].policy == twin.transforms[0].policy
        assert copy.transforms[0].size == SIZE
        twin.set_random_seed(7)
        copy.set_random_seed(7)
        np.testing.assert_array_equal(drawn(copy, image)[0], drawn(twin, image)[0])


def test_a_seed_of_numpy_is_the_same_seed() -> None:
    image = np.random.default_rng(0).random((9, 11, 3), np.float32)
    ours, theirs = (policy().albumentations(seed=seed)(image=image)["image"] for seed in (7, np.int64(7)))
    np.testing.assert_array_equal(ours, theirs)


def test_a_replay_repeats_the_draw() -> None:
    image = photograph(np.uint8)
    replay = A.ReplayCompose([twins.PolicyTransform(policy(), SIZE)])
    out = replay(image=image)
    again = A.ReplayCompose.replay(out["replay"], image=image)
    np.testing.assert_array_equal(out["image"], again["image"])


@pytest.mark.parametrize("bad", [{"policy": {"shfit": {}}}, {"policy": {}, "backend": "opncv"}])
def test_bad_input_is_one_line(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
        twins.PolicyTransform(**bad)  # type: ignore[arg-type]


class Draws(Dataset):
    """Gives the first row of a fixed image after the twin, so that a sample shows its draw."""

    def __init__(self, compose: A.Compose) -> None:
        ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (8, 1))
        self.transform = lambda: compose(image=ramp)["image"][4]

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> np.ndarray:
        return self.transform()


def epochs(compose: A.Compose, seed: int, persistent: bool = False, **options: object) -> list[torch.Tensor]:
    loader = DataLoader(
        Subset(Draws(compose), list(range(8))),
        batch_size=4,
        num_workers=2,
        persistent_workers=persistent,
        generator=torch.Generator().manual_seed(seed),
        multiprocessing_context="fork",
        **options,  # type: ignore[arg-type]
    )
    return [torch.cat(list(loader)) for _ in range(2)]


def shifting(seed: int | None = None) -> A.Compose:
    return augkit.Policy(shift={"max_pixels": 4.0}, padding="border").albumentations(seed=seed)  # type: ignore[arg-type]


def plain() -> A.Compose:
    """A pipeline that does not seed itself."""
    return A.Compose([twins.PolicyTransform({"shift": {"max_pixels": 4.0}, "padding": "border"})], seed=3)


def all_differ(rows: torch.Tensor) -> bool:
    return len(torch.unique(rows, dim=0)) == len(rows)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_and_epochs_differ_and_a_seed_repeats(persistent: bool) -> None:
    first = epochs(shifting(3), seed=0, persistent=persistent)
    assert all_differ(torch.cat(first))
    assert all(map(torch.equal, first, epochs(shifting(3), seed=0, persistent=persistent)))
    assert not any(map(torch.equal, first, epochs(shifting(3), seed=1, persistent=persistent)))
    assert not any(map(torch.equal, first, epochs(shifting(4), seed=0, persistent=persistent)))


def test_worker_init_fn_seeds_any_pipeline_in_the_dataset() -> None:
    broken = epochs(plain(), seed=0)
    assert torch.equal(broken[0], broken[1])  # the fault of albumentations 2.0.8: epochs repeat, and workers too
    assert torch.equal(broken[0][:4], broken[0][4:])
    mended = epochs(plain(), seed=0, worker_init_fn=twins.worker_init_fn)
    assert all_differ(torch.cat(mended))
    assert all(map(torch.equal, mended, epochs(plain(), seed=0, worker_init_fn=twins.worker_init_fn)))


def test_worker_init_fn_outside_a_worker() -> None:
    with pytest.raises(InputError, match="expected a DataLoader worker"):
        twins.worker_init_fn(0)
