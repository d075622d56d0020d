"""Arguments, one-line errors, exit codes and JSON of all commands.

Exit codes: 0 done, 2 bad input, 1 failure, 130 interrupted. Standard output contains only the result; progress goes to
standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from augkit.core.allocator import keep_freed_memory
from augkit.core.errors import MOST_SEED, AugkitError, InputError, RunError
from augkit.core.files import release
from augkit.core.processes import heed_interrupts
from augkit.core.terminal import command_line, print_any_text

if TYPE_CHECKING:
    from augkit.core.jobs.pool import WorkerSettings

SCRIPT = "augkit"  # the console script
HELP_WIDTH = 78
# Errors of a path that no check of ours foresees: pathlib raises them where it is only asked whether there is a file.
UNUSABLE = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_MADE: list[Path] = []  # by `new_folder`, in this process


class Interrupted(KeyboardInterrupt):
    """An interrupt (Ctrl-C); the message is the command that continues the work."""


class HelperInterrupted(KeyboardInterrupt):
    """An interrupt of a process that joined the work of another; the same command joins it again."""


class Parser(argparse.ArgumentParser):
    """A parser that raises InputError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def called(name: str, *, module: bool = True) -> str:
    """How a command is called: ``augkit NAME`` under the console script, else by ``python -m``.

    Without ``module``, ``augkit.NAME`` cannot be run, so the call is ``python -m augkit NAME``.
    """
    if Path(sys.argv[0]).stem == SCRIPT:
        return f"{SCRIPT} {name}"
    return f"python -m augkit.{name}" if module else f"python -m augkit {name}"


def bare_parser(name: str, description: str, example: str, *, module: bool = False) -> Parser:
    """Return a parser with ``--help`` alone; ``example``, for ``python -m``, is adapted as in `called`."""
    prog = called(name, module=module)
    return Parser(
        prog=prog,
        description=textwrap.fill(description, HELP_WIDTH),
        epilog="example:\n  " + example.replace(f"python -m augkit{'.' if module else ' '}{name}", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def make_parser(name: str, description: str, example: str, *, seed: str = "the recipe's") -> Parser:
    """Return a parser with the flags of every command that works on images; ``seed`` is the default in words."""
    parser = bare_parser(name, description, example, module=True)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write (default: a new one in runs/)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a CUDA GPU if any); mps has not been run")
    parser.add_argument("--seed", type=seed_number, help=f"seed of all randomness (default: {seed})")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    return parser


def add_writing(parser: Parser) -> None:
    """Add the flags of commands that write a folder and can resume it."""
    parser.add_argument("--resume", action="store_true", help="continue the work in --output")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result of augkit in --output")


def add_full(parser: Parser) -> None:
    """Add the flag of commands that print more than fits a terminal of 80 columns."""
    parser.add_argument("--full", action="store_true", help="print every table, some wider than 80 columns")


def add_log(parser: Parser) -> None:
    """Add the flag of commands that train runs."""
    text = "send the numbers of every epoch to these trackers: mlflow, tensorboard, trackio, wandb"
    parser.add_argument("--log", default="", metavar="NAME[,NAME]", help=text)


class FlagGroup(Protocol):
    """A parser, or a group of its flags."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add a flag."""


def add_spread(group: FlagGroup, storage: str, study: str) -> None:
    """Add the flags that distribute work over processes; `spread` reads them."""
    from augkit.core.jobs.launch import LAUNCHERS  # imports Optuna, which few commands need

    group.add_argument("--storage", metavar="URL", help=f"journal file or database (default: {storage})")
    group.add_argument("--study", metavar="NAME", help=f"name in the storage (default: {study})")
    group.add_argument("--workers", type=positive, default=1, help="processes on this machine (default: 1)")
    group.add_argument(
        "--workers-per-gpu", type=positive, default=1, metavar="N", help="workers that share a GPU (default: 1)"
    )
    group.add_argument(
        "--launcher", choices=tuple(LAUNCHERS), default="local", help="what starts the workers (default: local)"
    )
    group.add_argument(
        "--gpus-per-worker",
        type=_gpus,
        default=0.0,
        metavar="SHARE",
        help="with --launcher ray: GPUs per worker, such as 0.25",
    )
    group.add_argument(
        "--retries", type=non_negative, default=1, help="retries of a trial or cell whose worker died (default: 1)"
    )
    group.add_argument(
        "--grace",
        type=positive_number,
        default=300.0,
        metavar="SECONDS",
        help="time without a heartbeat after which a worker counts as dead (default: 300)",
    )


def spread(options: argparse.Namespace) -> WorkerSettings:
    """Return the settings of the workers from the flags of `add_spread`."""
    from augkit.core.jobs.pool import WorkerSettings  # not above, for the same reason

    return WorkerSettings(
        count=options.workers,
        per_gpu=options.workers_per_gpu,
        launcher=options.launcher,
        gpus_per_worker=options.gpus_per_worker,
        retries=options.retries,
        grace=options.grace,
    )


def _gpus(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else positive_number(text)


def positive(text: str) -> int:
    """Parse an integer of at least 1, for argparse."""
    return _integer(text, 1)


def non_negative(text: str) -> int:
    """Parse an integer of at least 0, for argparse."""
    return _integer(text, 0)


def seed_number(text: str) -> int:
    """Parse a seed, for argparse."""
    number = _integer(text, 0)
    if number > MOST_SEED:
        raise argparse.ArgumentTypeError(f"expected an integer below 2**63, got {number}")
    return number


def positive_number(text: str) -> float:
    """Parse a finite number above 0, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got '{text}'")
    return number


def _integer(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, got '{text}'") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, got {number}")
    return number


def split_recipe(words: Sequence[str], default: str | None) -> tuple[list[str], list[str]]:
    """Split positional words into recipes and overrides: those with ``=`` that are not the path of a recipe or run."""
    overrides = [word for word in words if "=" in word and not _is_recipe(Path(word).expanduser())]
    recipes = [word for word in words if word not in overrides]
    if not recipes and default is not None:
        recipes = [default]
    return recipes, overrides


def _is_recipe(path: Path) -> bool:
    """Whether a path is that of a YAML file, or of a folder with a recipe; ``lr=0.1`` may be the folder of a run."""
    try:
        return (path.suffix in (".yaml", ".yml") and path.is_file()) or (path / "recipe.yaml").is_file()
    except (OSError, ValueError):  # a name that is too long, or no name
        return False


def new_folder(kind: str) -> Path:
    """Create a folder in ``runs/`` named by kind and time, with a number if it already exists.

    It is created immediately, so that no other command in the same second uses it; `run` removes it if it stays empty.

    Raises:
        InputError: the folder cannot be created.
    """
    from augkit.core.ranks import rank  # imports torch, which listing the commands does not need

    name = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    folders = [Path("runs") / word for word in (name, *(f"{name}-{k}" for k in range(2, 1000)))]
    if rank() > 0:
        return folders[0]  # only the first process of a job writes
    for folder in folders:
        missing = [place.absolute() for place in (folder.parent, folder) if not place.exists()]
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"output '{folder}': cannot be made ({error.strerror}); name an --output") from None
        _MADE.extend(missing)
        return folder
    raise InputError(f"output: expected room for one more '{name}' in runs/, there are {len(folders)}")


def without_place(words: Sequence[str]) -> list[str]:
    """Return the words of a command without --output, --resume and --overwrite."""
    left, kept = iter(words), []
    for word in left:
        if word == "--output":
            next(left, None)
        elif word not in ("--resume", "--overwrite") and not word.startswith("--output="):
            kept.append(word)
    return kept


def interrupted(name: str, words: Sequence[str], folder: Path) -> Interrupted:
    """Return the exception for an interrupt; its message is the command as typed, with the folder and --resume."""
    line = [*without_place(words), "--output", str(folder), "--resume"]
    return Interrupted(f"{called(name)} {command_line(line)}")


def print_json(result: Mapping[str, object]) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(result, allow_nan=False))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of a device does not suffice."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in words)


def _told(error: MemoryError | RuntimeError | OSError) -> int | None:
    """Print an error that is none of augkit's own as one line and return its exit code; None for those of a bug."""
    if is_out_of_memory(error):
        reason = " ".join(str(error).split())[-160:]
        print(f"augkit: error: out of memory; smaller images or batches need less ({reason})", file=sys.stderr)
        return RunError.exit_code
    if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
        print(f"augkit: error: standard output cannot be written ({error.strerror})", file=sys.stderr)
        with contextlib.suppress(OSError, ValueError):  # what is left in its buffer would fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return RunError.exit_code
    if isinstance(error, OSError) and error.errno in UNUSABLE and error.filename is not None:
        expected = f"expected the name of a file or folder that can be opened ({error.strerror})"
        print(f"augkit: error: '{error.filename}': {expected}", file=sys.stderr)
        return InputError.exit_code
    return None


def run(main: Callable[[list[str]], None], arguments: list[str] | None = None) -> int:
    """Run a command's ``main`` and return its exit code; errors are printed as one line."""
    print_any_text()
    heed_interrupts()
    try:
        keep_freed_memory()
        main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # here and not at exit, where an error would be a traceback
    except AugkitError as error:
        print(f"augkit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except Interrupted as stop:
        print(f"augkit: interrupted; what was done is kept. To go on:\n  {stop}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("augkit: interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has closed it, as `| head` does; closing avoids a second error at exit.
        sys.stderr.close()
        return 1
    except (MemoryError, RuntimeError, OSError) as error:
        code = _told(error)
        if code is None:
            raise
        return code
    finally:
        release()
        while _MADE:
            with contextlib.suppress(OSError):  # it is not empty
                _MADE.pop().rmdir()
    return 0
