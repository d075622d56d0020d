"""A training loop of the user: a function that takes a policy and returns a network, and how it is called."""

from __future__ import annotations

import contextlib
import inspect
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol

from torch import nn

from augkit.architectures.modes import evaluated
from augkit.augment.policy import Policy
from augkit.core.errors import InputError, InputTypeError, RunError, WriteError, brief
from augkit.data import Images
from augkit.invariance import InvarianceReport
from augkit.train.evaluate import measure_model
from augkit.train.recipe import Recipe

PERIOD = 1.0  # seconds between two heartbeats while a function of the user runs
CALL = "train(policy, *, epochs, seed, start)"


class TrainFunction(Protocol):
    """A training loop of the user."""

    def __call__(self, policy: Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        """Train a network with ``policy`` for ``epochs`` epochs in all, and return it; see `augkit.tune_policy`."""


Score = Callable[[nn.Module], float]


class _TooLateError(BaseException):
    """A call took longer than its timeout; no Exception, so that the function does not catch it."""


def check_timeout(timeout: object) -> None:
    """Raise InputError unless ``timeout`` is None or a number of seconds above 0 that a timer can count."""
    if timeout is None:
        return
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 < timeout <= threading.TIMEOUT_MAX:  # type: ignore[operator]
        raise InputError(f"timeout: expected seconds above 0, got {brief(timeout)}; None waits for ever")


def check_function(function: object) -> None:
    """Raise InputError unless ``function`` can be called as ``train(policy, epochs=, seed=, start=)``."""
    if not callable(function):
        raise InputTypeError(f"train: expected a function {CALL}, got {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        return
    try:
        signature.bind(Policy(), epochs=1, seed=0, start=None)
    except TypeError as error:
        raise InputTypeError(f"train: expected a function {CALL}, got one of {signature} ({error})") from None


def check_score(score: object) -> None:
    """Raise InputError unless ``score`` is None or can be called as ``score(model)``."""
    if score is None:
        return
    if not callable(score):
        raise InputTypeError(f"score: expected a function score(model), got {type(score).__name__}")
    try:
        inspect.signature(score).bind(nn.Identity())
    except ValueError:  # some functions written in C have none
        return
    except TypeError as error:
        raise InputTypeError(f"score: expected a function score(model), got another one ({error})") from None


@contextlib.contextmanager
def _exit_as_error(name: str) -> Iterator[None]:
    """Context in which a function of the user that ends the process has failed.

    Lightning ends the process after Ctrl-C, which stays an interrupt.
    """
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise RunError(f"{name} raised SystemExit: {error} ({_place(error)})") from error


@_exit_as_error("train")
def trained_by(
    function: TrainFunction,
    policy: Policy,
    *,
    epochs: int,
    seed: int,
    start: Path | None,
    timeout: float | None = None,
    alive: Callable[[], None] = lambda: None,
) -> nn.Module:
    """Call the function; return the network.

    Args:
        function: the training loop.
        policy, epochs, seed, start: its arguments.
        timeout: seconds after which the call has failed; None waits for ever. In the main thread of a process on a
            POSIX system the function is interrupted; elsewhere ``alive`` is no longer called.
        alive: called about once a second by a thread; what it raises is raised when the function has returned.

    Raises:
        RunError: the function raised, took too long, or returned no network.
    """
    try:
        with beating(alive, timeout), _interrupted_after(timeout):
            model = function(policy, epochs=epochs, seed=seed, start=start)
    except WriteError:
        raise  # the disk is full: a trial is handed back
    except _TooLateError:
        raise RunError(f"train: expected a network within {timeout:g} s (timeout), got none") from None
    except Exception as error:
        raise RunError(f"train raised {type(error).__name__}: {error} ({_place(error)})") from error
    if not isinstance(model, nn.Module):
        raise RunError(f"train: expected a torch.nn.Module, got {type(model).__name__}; return the trained network")
    return model


def measured(model: nn.Module, recipe: Recipe, images: Images, **options: object) -> InvarianceReport:
    """Measure a network that a function returned, on its own device; ``options`` as in `measure_model`.

    Raises:
        RunError: its outputs are not finite logits ``(B, K)``, or K is too small for the labels.
    """
    try:
        return measure_model(model, recipe, images, **options)  # type: ignore[arg-type]
    except InputError as error:
        raise RunError(f"the network that train returned cannot be measured: {error}") from error


@_exit_as_error("score")
def scored_by(score: Score, model: nn.Module, alive: Callable[[], None] = lambda: None) -> float:
    """The score in [0, 1] of a network in ``eval()``; raise RunError if the function raises or gives another number."""
    try:
        with beating(alive), evaluated(model):  # as accuracy, in whose place the score stands
            value = float(score(model))
    except Exception as error:
        raise RunError(f"score raised {type(error).__name__}: {error}") from error
    if not 0 <= value <= 1:
        raise RunError(f"score: expected a number in [0, 1], higher is better, got {value:g}")
    return value


def _place(error: BaseException) -> str:
    """File and line of an error, in the file of the function."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    frames = [f for f in frames if f.filename != contextlib.__file__]
    if not frames:
        return "in its call"
    last = [frame for frame in frames if frame.filename == frames[0].filename][-1]
    return f"{Path(last.filename).name}:{last.lineno}"


@contextlib.contextmanager
def beating(alive: Callable[[], None], timeout: float | None = None) -> Iterator[None]:
    """Context in which a thread calls ``alive`` until the timeout; what that raises is raised at the end."""
    stop, raised, began = threading.Event(), list[BaseException](), time.monotonic()

    def beat() -> None:
        while not stop.wait(PERIOD):
            if timeout is not None and time.monotonic() - began > timeout + PERIOD:
                return  # the function cannot be interrupted: this process counts as hung, and others notice
            try:
                alive()
            except BaseException as error:
                raised.append(error)
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if raised:
        raise raised[0]


@contextlib.contextmanager
def _interrupted_after(timeout: float | None) -> Iterator[None]:
    """Context that is interrupted by `_TooLateError` after ``timeout`` seconds, where a signal can do that."""
    main = threading.current_thread() is threading.main_thread()
    if timeout is None or not main or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TooLateError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
