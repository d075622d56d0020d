"""Loads datasets, folders and tables as splits of uint8 images, in memory or streamed, and makes atypical images.

Splits are fixed: they depend only on the dataset, never on a recipe's seed.
"""

from augkit.data.atypical import atypical, atypical_versions
from augkit.data.batches import batches
from augkit.data.dataset import Dataset
from augkit.data.files import list_images
from augkit.data.folder import read_files
from augkit.data.images import Images
from augkit.data.load import load_dataset
from augkit.data.splits import sample
from augkit.data.stream import Reading, Stream
from augkit.data.torchvision import TORCHVISION
from augkit.data.whole import WholeImages

__all__ = [
    "TORCHVISION",
    "Dataset",
    "Images",
    "Reading",
    "Stream",
    "WholeImages",
    "atypical",
    "atypical_versions",
    "batches",
    "list_images",
    "load_dataset",
    "read_files",
    "sample",
]
