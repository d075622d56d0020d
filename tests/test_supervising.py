"""Who is alive, and who is taken for dead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from augkit.supervising import _lives, _Member

HOUR = 3600.0


def begun(ago: float) -> FrozenTrial:
    trial = optuna.create_trial(state=TrialState.RUNNING)
    trial.datetime_start = datetime.now() - timedelta(seconds=ago)
    return trial


@pytest.mark.parametrize("clock", [-HOUR, HOUR])
def test_silence_is_no_matter_of_clocks(tmp_path: Path, clock: float) -> None:
    """A status file lies on a disk whose clock differs from ours, or the laptop has slept."""
    status = tmp_path / "0.json"
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        member = _Member(0, "here:1:0", process, status, tmp_path / "0.log", time.monotonic() - HOUR, 0, 0)
        assert member.silent() >= HOUR, "it has not said anything since it was started"
        for k in range(3):
            status.write_text("{}")
            os.utime(status, (time.time() + clock + k, time.time() + clock + k))
            assert member.silent() < 60
        before = member.silent()
        time.sleep(0.02)
        assert member.silent() >= before + 0.02


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="there is no /proc")
def test_a_process_is_the_one_that_began_a_trial_only_if_it_is_older() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert _lives(process.pid, begun(ago=-1))
        assert not _lives(process.pid, begun(ago=HOUR)), "another program with the number of one that has died"
        process.communicate(b"\n")
    assert not _lives(process.pid, begun(ago=0))
    assert not _lives(os.getpid(), begun(ago=0)), "this process has just begun to look"


def test_one_that_has_ended_and_was_not_asked_after_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        assert process.stdout is None
        until = time.monotonic() + 60
        while _lives(process.pid, begun(ago=0)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not _lives(process.pid, begun(ago=0))
