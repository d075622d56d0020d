"""``python -m augkit.preview``: shows the effect of a policy on an image, and of each kernel at half a pixel."""

from __future__ import annotations

import sys

from augkit.core.cli import Parser, make_parser, new_folder, print_json, run, split_recipe
from augkit.core.errors import InputError
from augkit.core.progress import Display
from augkit.data.files import check_kept
from augkit.preview.render import STAGES, PreviewSettings, preview
from augkit.preview.strengths import QUANTILES, STRENGTHS
from augkit.preview.subject import find_subject
from augkit.train.build import check_overwrite

EXAMPLE = """python -m augkit.preview                                     # a photograph, an example of each op
  python -m augkit.preview photo.jpg policy.shift.max_pixels=12
  python -m augkit.preview digits --quantiles 0.1 0.5 0.9
  python -m augkit.preview mnist5k policy.kernel=bilinear --output runs/seen"""


def command_parser() -> Parser:
    """Return the parser of the command."""
    description = "Draw what a policy does to an image, and what each kernel does to it at half a pixel."
    parser = make_parser("preview", description, EXAMPLE)
    parser.add_argument(
        "source",
        nargs="*",
        metavar="IMAGE|DATA|RECIPE [dotted.key=value ...]",
        help="an image file, a dataset (mnist5k, digits, folder:DIR, ...), or a recipe's file or shipped name; "
        "a name that is both is the recipe (default: a photograph that scikit-learn carries)",
    )
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS, metavar="S", help="columns, in [0, 1]")
    text = "quantiles of the draws, one row each, in [0, 1)"
    parser.add_argument("--quantiles", type=float, nargs="+", default=QUANTILES, metavar="Q", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace what augkit wrote to --output before")
    return parser


def main(arguments: list[str]) -> None:
    """Parse the command line, write the preview, print its files."""
    options = command_parser().parse_intermixed_args(arguments)
    sources, overrides = split_recipe(options.source, None)
    if len(sources) > 1:
        raise InputError(f"expected one image, dataset or recipe, got {len(sources)}: {' '.join(sources)}")
    subject = find_subject(sources[0] if sources else None, overrides, options.seed)
    if options.output is not None and options.overwrite:
        check_kept(options.output, sources)
        if subject.recipe is not None:
            check_overwrite(options.output, subject.recipe)
    folder = options.output or new_folder("preview")
    settings = PreviewSettings(tuple(options.strengths), tuple(options.quantiles), options.device)
    with Display(STAGES, quiet=options.quiet) as display:
        result = preview(subject, folder, settings, overwrite=options.overwrite, display=display)
    if options.json:
        print_json(result.to_dict())
    else:
        print("\n".join(str(folder / name) for name in result.files))


if __name__ == "__main__":
    sys.exit(run(main))
