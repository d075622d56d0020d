"""The sections of a recipe: every field with its unit, its bounds and what it means."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from augkit.architectures import NETWORKS
from augkit.augment.fit import decode_size_problem
from augkit.augment.policy import Kernel
from augkit.core.errors import unknown_name
from augkit.core.schema import Data

OTHERS = ("timm:", "torchvision:")
# Fields of data, model and training that older recipes lack, and their defaults.
LATER = (("crop_share", 1.0), ("decode_size", None), ("classes", None), ("canvas_fill", "black"), ("jitter", 0))
LATER_OF_MODEL = (("position", None), ("weights_of", "all"))
LATER_OF_TRAIN = (("freeze", None),)


class DataSettings(Data):
    """Images, and their form at the input of the network."""

    name: str = Field(
        description="mnist5k, digits, a dataset of torchvision (fashion-mnist, cifar10, ...), folder:DIR, parquet:DIR"
        " or hf:NAME"
    )
    root: str | None = Field(None, description="folder of torchvision datasets (path)")
    image_size: int | None = Field(
        None,
        ge=1,
        description="evaluation resizes the shorter side to image_size / crop_share and cuts the center of image_size"
        " (pixels); the crop of a policy is drawn from the whole image",
    )
    crop_share: float = Field(
        1.0, gt=0, le=1, description="share of the shorter side that the cut center shows: 0.875 is 224 of 256 pixels"
    )
    decode_size: int | None = Field(
        None,
        ge=1,
        description="shorter side to which images are reduced before the crop of a policy is drawn (pixels), and at"
        " which JPEG is decoded in less time; what the smallest crop needs when null",
    )
    canvas: int | None = Field(None, ge=1, description="side of the canvas the image is put on (pixels)")
    canvas_fill: Literal["black", "mean", "reflection"] = Field(
        "black", description="pixels of the canvas: black, the mean color of the image, or the image mirrored"
    )
    jitter: int = Field(
        0,
        ge=0,
        description="each training image lies once and for all up to this far from the center of the canvas along each"
        " axis (pixels); 0 is the center. Other images lie in the center",
    )
    mean: list[float] = Field([0.5], min_length=1, description="per channel, of images in [0, 1]")
    std: list[float] = Field([0.5], min_length=1, description="per channel, of images in [0, 1]")
    limit: int | None = Field(None, ge=10, description="keep at most this many training images")
    classes: list[int | str] | None = Field(
        None,
        min_length=1,
        description="train and validate on images of these classes alone, by number or name; the network still has an"
        " output for every class, and the test split its images. All when null",
    )
    channels: Literal[1, 3] | None = Field(None, description="convert to gray (1) or RGB (3); as they are when null")
    labels_file: str | None = Field(None, description="which class is which output of the network (path)")
    skip_corrupt: bool = Field(False, description="leave broken files out, count and name them")
    max_megapixels: int | None = Field(
        None, ge=1, description="refuse larger pictures (millions of pixels); Pillow's limit, 179, when null"
    )
    workers: int | None = Field(None, ge=0, description="processes that decode; one per core, at most 8, when null")
    memory: int = Field(2048, ge=0, description="decoded data up to this are held on the device, else stream (MiB)")

    @model_serializer(mode="wrap")
    def _without_later_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A field that was added later leaves the digest of a recipe that does not use it as it was."""
        tree: dict[str, object] = dump(self)
        return {key: value for key, value in tree.items() if (key, value) not in LATER}

    @model_validator(mode="after")
    def _check(self) -> DataSettings:
        if len(self.mean) != len(self.std):
            raise ValueError(f"as many values in mean as in std, {len(self.mean)} and {len(self.std)} came")
        if min(self.std) <= 0:
            raise ValueError("every std above 0")
        if self.canvas is None and (self.jitter or self.canvas_fill != "black"):
            key = "jitter" if self.jitter else "canvas_fill"
            raise ValueError(f"a canvas with {key}, which places images on it")
        problem = decode_size_problem(self.decode_size, self.image_size, self.crop_share)
        if problem:
            raise ValueError(f"for decode_size {problem}")
        return self


class ModelSettings(Data):
    """Which network."""

    name: str = Field(
        "small_cnn", description=f"{', '.join(NETWORKS)}; or timm:NAME, torchvision:NAME for networks of these packages"
    )
    downsample: Literal["maxpool", "stride", "blurpool", "aps", "lps", "aliasfree"] | None = Field(
        None, description="how maps are halved; the network's own when null (mostly maxpool)"
    )
    head: Literal["gap", "fc", "spp", "token"] = Field(
        "gap", description="global average, fully connected, spatial pyramid, or the class token of a ViT"
    )
    padding_mode: Literal["zeros", "circular", "reflect", "full"] = Field("zeros", description="of convolutions")
    activation: Literal["relu", "gelu", "quadratic", "aliasfree", "aliasfree_gelu"] | None = Field(
        None, description="the network's own when null"
    )
    stem: Literal["small", "imagenet"] = Field("small", description="of ResNets, ConvNeXts and ViTs")
    width: int | None = Field(None, ge=1, description="channels of the first stage; the network's own when null")
    position: Literal["learned", "relative", "none"] | None = Field(
        None, description="of ViTs; relative with aps, lps and aliasfree, else learned, when null"
    )
    pretrained: bool = Field(
        False,
        description="begin with the weights that timm or torchvision have for timm:NAME or torchvision:NAME, which are"
        " downloaded once; torchvision:NAME@WEIGHTS chooses among them",
    )
    weights: str | None = Field(
        None,
        description="begin with this state dict; a final layer that differs stays (path; in a study also cell:ARM, the"
        " trained network of another arm with the same seed)",
    )
    weights_of: Literal["all", "features", "head"] = Field(
        "all", description="the part of the network that takes the weights; the other is drawn from the seed"
    )

    @model_serializer(mode="wrap")
    def _without_later_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        """As in `DataSettings`: recipes that do not use a later field keep their digest."""
        tree: dict[str, object] = dump(self)
        return {key: value for key, value in tree.items() if (key, value) not in LATER_OF_MODEL}

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NETWORKS and not any(name.startswith(form) and name != form for form in OTHERS):
            raise ValueError(
                f"a network; {unknown_name('network', name, [*NETWORKS, 'timm:NAME', 'torchvision:NAME'])}"
            )
        if name.startswith("torchvision:") and name.endswith("@"):
            raise ValueError("the name of the weights after @, such as @DEFAULT")
        return name

    @model_validator(mode="after")
    def _check(self) -> ModelSettings:
        if self.pretrained and not self.name.startswith(OTHERS):
            names = " or ".join(f"{form}NAME" for form in OTHERS)
            raise ValueError(f"pretrained with {names} only, '{self.name}' came; give weights, the path of a file")
        if self.weights_of != "all" and self.weights is None:
            raise ValueError(f"weights, a path, with weights_of {self.weights_of}")
        if self.name in NETWORKS:
            return self
        if self.weights_of != "all":
            raise ValueError(f"no weights_of with {self.name}: parts are those of augkit's own networks")
        for key in ("head", "padding_mode", "activation", "stem", "width", "position"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"no {key} with {self.name}: it belongs to augkit's own networks")
        return self


class OptimSettings(Data):
    """How weights are updated."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum, or AdamW")
    lr: float = Field(0.1, gt=0, description="largest learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    nesterov: bool = Field(True, description="Nesterov's form of the momentum")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of AdamW")
    weight_decay: float = Field(5e-4, ge=0, description="on weights; norms, biases, phases and positions are spared")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; not clipped when null")

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("two numbers in [0, 1)")
        return betas


class ScheduleSettings(Data):
    """The learning rate over the steps of a run, as a share of ``optim.lr``; see `augkit.train.schedule`."""

    name: Literal["cosine", "onecycle", "step", "constant"] = Field("cosine", description="what follows the warm-up")
    warmup: float = Field(0.2, ge=0, lt=1, description="share of steps over which the rate rises")
    milestones: list[float] = Field([0.5, 0.75], description="of step: after these shares of steps the rate drops")
    gamma: float = Field(0.1, gt=0, le=1, description="of step: factor at each milestone")
    final: float = Field(0.0, ge=0, le=1, description="of cosine and onecycle: the rate at the end (share of optim.lr)")

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: list[float]) -> list[float]:
        if sorted(set(milestones)) != milestones or not all(0 < share < 1 for share in milestones):
            raise ValueError("rising shares between 0 and 1")
        return milestones


class FreezeSettings(Data):
    """Parts of augkit's own networks whose weights and running statistics stay as they began."""

    stages: int = Field(
        0, ge=0, description="the first stages: blocks of the network, the first with all that comes before it"
    )
    head: bool = Field(False, description="whether the head is frozen")


class TrainSettings(Data):
    """Length and options of training."""

    epochs: int = Field(10, ge=1, description="passes over the training split")
    steps: int | None = Field(None, ge=1, description="updates of the weights in all; takes the place of epochs")
    batch_size: int = Field(128, ge=2, description="images per update, over all processes and accumulated parts")
    accumulate: int = Field(1, ge=1, description="parts of a batch whose gradients are summed before an update")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    mixup: float = Field(0.0, ge=0, description="alpha of Beta(alpha, alpha), per sample; 0 is off")
    cutmix: float = Field(
        0.0, ge=0, description="alpha of Beta(alpha, alpha), per sample; 0 is off; with mixup, half each"
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay per step of averaged weights, which are what is kept"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the forward pass")
    channels_last: bool = Field(True, description="memory format of images and weights, where it can be trusted")
    compile: bool = Field(False, description="compile the network (torch.compile)")
    deterministic: bool = Field(False, description="same numbers twice on a GPU too; slower, an error where impossible")
    evaluate_every: int = Field(1, ge=1, description="epochs between evaluations on the validation split")
    patience: int | None = Field(
        None, ge=1, description="stop after this many evaluations without a better accuracy, and keep the best weights"
    )
    checkpoint_steps: int | None = Field(None, ge=1, description="updates between checkpoints within an epoch")
    test_time_shift: float = Field(
        0.0, ge=0, description="evaluation averages the image and its shifts by this to four sides (pixels)"
    )
    tensorboard: bool = Field(False, description="write event files too (pip install 'augkit[tensorboard]')")
    freeze: FreezeSettings | None = Field(None, description="parts that are not trained; none when null")

    @model_serializer(mode="wrap")
    def _without_later_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        """As in `DataSettings`: recipes that do not use a later field keep their digest."""
        tree: dict[str, object] = dump(self)
        return {key: value for key, value in tree.items() if (key, value) not in LATER_OF_TRAIN}

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size in {self.accumulate} equal parts, {self.batch_size} came")
        return self


class ConstraintSettings(Data):
    """A least learned invariance, which training reaches by a penalty; see `augkit.train.constraint`."""

    learned_invariance: float = Field(gt=0, lt=1, description="the least share of the control's variability to remove")
    control: float | None = Field(
        None,
        gt=0,
        le=1,
        description="shift information of the control; null trains one first, without augmentation and constraint",
    )
    rate: float = Field(1.0, gt=0, description="growth of the penalty per epoch where variability is twice its bound")

    @property
    def bound(self) -> float:
        """The largest shift information that is allowed; the control's must be known."""
        assert self.control is not None
        return (1 - self.learned_invariance) * self.control


class InvarianceSettings(Data):
    """How invariance is measured."""

    protocol: Literal["crop", "embed", "circular"] = Field("embed", description="where border pixels come from")
    max_shift: float = Field(4.0, gt=0, description="largest shift along each axis (pixels of the input)")
    kernel: Kernel | None = Field(None, description="interpolation; the protocol's own when null")
    pairs: int = Field(4, ge=1, description="pairs of shifts per image")
    every: int | None = Field(None, ge=1, description="epochs between measurements during training; none when null")
    images: int = Field(500, ge=2, description="validation images of these measurements")
