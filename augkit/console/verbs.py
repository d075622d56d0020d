"""The commands by name. A row names the module of a command, which is imported when the command is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from augkit.core.cli import Parser


@dataclass(frozen=True)
class Verb:
    """A command.

    Attributes:
        module: below `augkit`; it has ``main(arguments)`` and ``command_parser()``.
        summary: what the command does, in at most 60 characters.
    """

    module: str
    summary: str

    def main(self) -> Callable[[list[str]], None]:
        """Import the command, and return the function that runs it."""
        found: Callable[[list[str]], None] = import_module(f"augkit.{self.module}").main
        return found

    def parser(self) -> Parser:
        """Import the command, and return its parser."""
        found: Parser = import_module(f"augkit.{self.module}").command_parser()
        return found


VERBS = {
    "preview": Verb("preview.__main__", "draw what a policy does to an image"),
    "train": Verb("train.__main__", "train one recipe"),
    "tune": Verb("tune.__main__", "search augmentation for accuracy and learned invariance"),
    "measure": Verb("measure.__main__", "measure how invariant a network is"),
    "compare": Verb("compare.__main__", "compare recipes or runs over seeds; test the claims of a study"),
    "push": Verb("console.push", "publish a run with its model card on the Hugging Face Hub"),
    "doctor": Verb("console.doctor", "check versions, devices, backends and storages"),
    "completion": Verb("console.completion", "print the completion script of a shell"),
}
