"""A recipe: data, model, policy and training in one frozen value and one YAML file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from augkit.errors import InputError, unknown_name
from augkit.policy import Data, Kernel, Policy
from augkit.schema import apply_overrides, parse_yaml, validate


class DataSettings(Data):
    """Which images, and how they are put before the network."""

    name: str = Field(description="dataset: mnist5k, digits, fashion-mnist, cifar10, ..., or folder:DIR")
    root: str | None = Field(None, description="folder of torchvision datasets (path)")
    image_size: int | None = Field(None, ge=1, description="resize the shorter side and cut the centre (pixels)")
    canvas: int | None = Field(None, ge=1, description="side of the canvas the image is put on (pixels)")
    mean: list[float] = Field([0.5], min_length=1, description="per channel, of images in [0, 1]")
    std: list[float] = Field([0.5], min_length=1, description="per channel, of images in [0, 1]")
    limit: int | None = Field(None, ge=10, description="keep at most this many training images")

    @model_validator(mode="after")
    def _check(self) -> DataSettings:
        if len(self.mean) != len(self.std):
            raise ValueError(f"as many values in mean as in std, {len(self.mean)} and {len(self.std)} came")
        if min(self.std) <= 0:
            raise ValueError("every std above 0")
        return self


class ModelSettings(Data):
    """Which network."""

    name: Literal["small_cnn", "resnet18", "resnet34", "resnet50", "vgg11", "vgg13"] = Field(
        "small_cnn", description="network"
    )
    downsample: Literal["maxpool", "stride", "blurpool", "aps", "lps"] = Field(
        "maxpool", description="how maps are halved"
    )
    head: Literal["gap", "fc", "spp"] = Field("gap", description="global average, fully connected, spatial pyramid")
    padding_mode: Literal["zeros", "circular", "reflect", "full"] = Field("zeros", description="of convolutions")
    activation: Literal["relu", "gelu"] | None = Field(None, description="the network's own when null")
    stem: Literal["small", "imagenet"] = Field("small", description="of ResNets: 3x3, or 7x7 and a max pool")
    width: int | None = Field(None, ge=1, description="channels of the first stage; the network's own when null")


class OptimSettings(Data):
    """How weights are updated."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="SGD with Nesterov momentum, or AdamW")
    lr: float = Field(0.1, gt=0, description="largest learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="on weights; norms and biases are spared")


class TrainSettings(Data):
    """How long and how."""

    epochs: int = Field(10, ge=1, description="passes over the training split")
    batch_size: int = Field(128, ge=2, description="images per step")
    warmup: float = Field(0.2, ge=0, lt=1, description="share of steps over which the rate rises; cosine after")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")


class InvarianceSettings(Data):
    """What is measured, and how."""

    protocol: Literal["crop", "embed", "circular"] = Field("embed", description="where border pixels come from")
    max_shift: float = Field(4.0, gt=0, description="largest shift along each axis (pixels of the input)")
    kernel: Kernel | None = Field(None, description="interpolation; the protocol's own when null")
    pairs: int = Field(4, ge=1, description="pairs of shifts per image")


class Recipe(Data):
    """All that a run needs: the same recipe and seed give the same run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$", description="name of run folders")
    data: DataSettings = Field(description="images")
    model: ModelSettings = Field(default_factory=ModelSettings, description="network")
    policy: Policy = Field(default_factory=Policy, description="augmentation")
    optim: OptimSettings = Field(default_factory=OptimSettings, description="optimiser")
    train: TrainSettings = Field(default_factory=TrainSettings, description="training")
    invariance: InvarianceSettings = Field(default_factory=InvarianceSettings, description="measuring")
    seed: int = Field(0, ge=0, description="of initial weights, data order and augmentation")

    @classmethod
    def load(cls, source: str | Path, overrides: list[str] | None = None) -> Recipe:
        """Load a recipe file, or one that ships with augkit by its name.

        Args:
            source: a path to a YAML file, or a name such as ``mnist5k``.
            overrides: ``dotted.key=value``, applied in order.

        Raises:
            InputError: missing file, unknown key (with the nearest), wrong type, value out of range.
        """
        path = find_recipe(source)
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"recipe '{path}': cannot be read ({error})") from None
        tree = parse_yaml(text, str(path))
        tree.pop("augkit", None)  # the versions that a run folder adds
        return validate(cls, apply_overrides(tree, overrides or []), str(path))

    def to_yaml(self, header: str = "") -> str:
        """YAML that `load` reads back to an equal recipe; ``header`` becomes comment lines on top."""
        comment = "".join(f"# {line}\n" if line else "#\n" for line in header.splitlines())
        return comment + yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False)

    def control(self) -> Recipe:
        """The same recipe without augmentation: what learned invariance is measured against."""
        plain = Policy(kernel=self.policy.kernel, padding=self.policy.padding)
        return self.replaced(name=f"{self.name}-control", policy=plain)

    def digest(self) -> str:
        """A short hash of every field."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:12]

    def replaced(self, **sections: Any) -> Recipe:
        """A copy with whole sections replaced, checked again.

        >>> recipe = Recipe(name="x", data={"name": "digits"}).replaced(seed=3)
        >>> recipe.seed
        3
        """
        values = {key: (v.model_dump() if isinstance(v, Data) else v) for key, v in sections.items()}
        return validate(Recipe, {**self.model_dump(), **values}, f"recipe {self.name}")


def recipe_folders() -> list[Path]:
    """Where recipes that ship with augkit lie: in an installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return [folder for folder in (here / "recipes", here.parent / "recipes") if folder.is_dir()]


def find_recipe(source: str | Path) -> Path:
    """The file that ``source`` names: a path, or the name of a recipe that ships with augkit."""
    path = Path(source).expanduser()
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    if path.is_file():
        return path
    shipped = {file.stem: file for folder in recipe_folders() for file in sorted(folder.glob("*.yaml"))}
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise InputError(f"recipe '{source}': no such file (shipped by name: {', '.join(sorted(shipped))})")
    if path.name not in shipped:
        raise unknown_name("recipe", source, shipped)
    return shipped[path.name]
