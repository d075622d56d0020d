"""``augkit push RUN NAME``: publishes a run with its model card on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from augkit.core.cli import Parser, bare_parser, print_json

EXAMPLE = """python -m augkit push runs/first me/digits --dry-run     # which files
  python -m augkit push runs/first me/digits --measured runs/first-measured"""


def command_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        "Publish a run on the Hugging Face Hub: model.safetensors, the recipe, the history, and a model card with"
        " accuracy and measured invariance. Neither the state of the optimizer nor absolute paths are published."
    )
    parser = bare_parser("push", description, EXAMPLE)
    parser.add_argument("run", metavar="FOLDER", type=Path, help="folder of a run of augkit.train")
    parser.add_argument("name", metavar="NAME", help="repository, as user/model")
    parser.add_argument("--measured", metavar="DIR", type=Path, help="folder of augkit.measure, with this run measured")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dry-run", action="store_true", help="list the files, and publish nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")
    return parser


def main(arguments: list[str]) -> None:
    """Parse, publish, print."""
    from augkit.train.hub import push_to_hub

    options = command_parser().parse_args(arguments)
    found = push_to_hub(
        options.run, options.name, private=options.private, measured=options.measured, dry_run=options.dry_run
    )
    if options.json:
        print_json(found.to_dict())
        return
    print(f"published: {found.url}" if found.url else f"would be published as {found.name}:")
    for name, size in found.files.items():
        print(f"  {name:18} {size:>12,} bytes")
