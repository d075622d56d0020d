"""``python -m augkit.measure`` on detectors and keypoints: recognition, options, page, one line without boxes."""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path

import pytest

from augkit.core.cli import run
from augkit.measure import __main__ as measure

NETS = """
import torch
from torch import nn

class Bright(nn.Module):
    # A box around the brightest pixel of every other row and column.
    def forward(self, images):
        out = []
        for image in images[:, 0, ::2, ::2]:
            at = image.argmax()
            middle = 2 * torch.stack([at % image.shape[1], at // image.shape[1]]) + 0.5
            box = torch.cat([middle - 1.5, middle + 1.5])[None]
            out.append({"boxes": box, "scores": image.max()[None], "labels": torch.ones(1, dtype=torch.int64)})
        return out

class Points(Bright):
    def forward(self, images):
        boxes = torch.stack([one["boxes"][0] for one in super().forward(images)])
        return torch.stack([boxes[:, :2], boxes[:, 2:]], dim=1)
"""


@pytest.fixture(autouse=True)
def _nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_boxes.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets_of_boxes", None)


def call(words: str) -> int:
    model, *rest = words.split()
    data = ["--data", "digits", "--limit", "12", "--max-shift", "1", "--quiet"]
    return run(measure.main, [f"nets_of_boxes:{model}", *data, *rest])


@pytest.mark.integration
def test_a_detector_is_recognized_and_its_page_shows_the_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("Bright --json --box-score 0.2 --box-border 0.5 --output out") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "detections"
    for name in ("equivariance_error", "lost", "new", "vanished", "class_change"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"], name
    assert found["settings"]["of_kind"] == {"box_score": 0.2, "box_iou": 0.5, "box_border": 0.5}
    assert found["lost"]["value"] > 0
    page = html.unescape(Path("out/report.html").read_text())
    assert "lost boxes" in page
    assert "appeared); violet" in page


def test_keypoints_are_recognized(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("Points --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "keypoints"
    assert 0 < found["error_median"]["value"] <= found["error_95"]["value"]


def test_no_boxes_on_all_images_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("Bright --box-score 2") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "got none on all 12 images" in lines[0]
    assert "lower box_score" in lines[0]
    assert call("Points --box-score 0.5") == 2
    assert "box_score: it belongs to outputs of kind 'detections'" in capsys.readouterr().err
