"""Notes and artifacts of trials, as optuna-dashboard shows them in a real browser."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from augkit.core.cli import run
from augkit.train.recipe import Recipe
from augkit.tune import __main__ as tune
from augkit.tune.dashboard import recipe_diff

BROWSERS = [name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)]


def test_recipe_diff_lists_only_changed_fields() -> None:
    base = Recipe.load("mnist5k")
    other = Recipe.load("mnist5k", ["policy.shift.max_pixels=1.5"])
    assert recipe_diff(base, base) == "The recipe without changes."
    assert recipe_diff(base, other).splitlines()[2:] == ["| `policy.shift.max_pixels` | 3.0 | 1.5 |"]


@pytest.mark.slow
@pytest.mark.skipif(not BROWSERS, reason="no Chromium")
def test_the_dashboard_shows_the_note_and_pictures_of_a_trial(tiny: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    file, folder = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(tiny.to_yaml())
    words = [str(file), "--trials", "2", "--seeds", "1", "--top", "1", "--dashboard", "--quiet"]
    assert run(tune.main, [*words, "--output", str(folder)]) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), str(folder / "study.journal")]
    command += ["--artifact-dir", str(folder / "artifacts"), "--port", str(port)]
    address = f"http://127.0.0.1:{port}/dashboard/studies/0/trials?numbers=2"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(address, timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.2)
            browser = [BROWSERS[0], "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'b'}"]
            browser += ["--virtual-time-budget=20000", "--dump-dom", address]
            page = subprocess.run(browser, capture_output=True, text=True, timeout=120, check=True).stdout
        finally:
            server.terminate()
    assert "<code>policy.shift.max_pixels</code>" in page or "policy.shift.max_pixels" in page.split("Artifacts")[0]
    assert "this trial" in page
    assert "contact-sheet.png" in page
    assert "response.png" in page
