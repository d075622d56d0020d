"""What tests of studies share."""

from __future__ import annotations

import pytest


@pytest.fixture
def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies draw no report: charts take longer than the runs of a tiny study; other tests look at them."""
    from augkit.compare.study import pipeline

    monkeypatch.setattr(pipeline, "study_page", lambda results: f"<title>{results.title}</title>\n")
    monkeypatch.setattr(pipeline, "save_png", lambda picture, path: path.touch())
