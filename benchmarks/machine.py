"""On what a benchmark ran: its command, versions and machine."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def environment(device: str, packages: Sequence[str]) -> dict[str, Any]:
    """Command, versions and machine."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "command": "python " + " ".join(sys.argv),
        "python": platform.python_version(),
        "versions": versions,
        "machine": platform.machine(),
        "processor": processor(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "openmp": {name: value for name, value in os.environ.items() if name.startswith("OMP_")},
        "load_before": loads(),
        "date": time.strftime("%Y-%m-%d"),
    }


def loads() -> list[float] | None:
    """Processes that wanted a core over the last 1, 5 and 15 minutes; more than cores means a disturbed run."""
    return [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else None


def processor() -> str:
    """The processor's own name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
