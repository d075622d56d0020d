"""`measure`: how invariant a network is to shifts and rescaling of its input, on one or several image sets."""

from __future__ import annotations

import json
from pathlib import Path

from augkit.core.errors import InputError
from augkit.core.files import environment, write
from augkit.core.random_streams import seeded
from augkit.data.files import check_kept
from augkit.measure.image_sets import atypical_sets, load_gallery, load_image_sets
from augkit.measure.output_results import OutputResults
from augkit.measure.output_session import OutputSession
from augkit.measure.output_settings import LOGITS, choose_kind
from augkit.measure.page import measured_page
from augkit.measure.results import MeasureResults
from augkit.measure.session import MeasureSession
from augkit.measure.settings import MeasureSettings
from augkit.measure.views import choose_protocol, choose_views
from augkit.train.load_model import LoadedModel, load_model


def measure(
    model: str,
    data: str | None = None,
    settings: MeasureSettings | None = None,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str | None = None,
) -> MeasureResults | OutputResults:
    """Measure how much the output of a network varies when its input is shifted or rescaled.

    `augkit.measure_invariance` is the same for a network and images in memory, `augkit.measure_outputs` for outputs
    other than logits.

    Args:
        model: a run folder or checkpoint of augkit, ``torchvision:NAME[@WEIGHTS]``, ``timm:NAME``, ``hf:NAME``,
            ``open_clip:NAME[/PRETRAINED]`` or ``package.module:callable``.
        data: a name, ``folder:DIR``, ``parquet:DIR`` or ``hf:NAME``; the run's own dataset when None.
        settings: settings of the measurement.
        output: folder for ``results.json``, ``report.html``, ``environment.json`` and the state of the measurement;
            nothing is written when None.
        resume: continue the measurement in ``output``; on the CPU the result is bitwise that of one run.
        overwrite: replace a measurement in ``output``.
        progress: show progress on standard error.
        command: the command that repeats the measurement, for the results and the report; this call when None.

    Returns:
        The results on every image set, with what is needed to repeat them: `MeasureResults` of logits, `OutputResults`
        of other outputs.

    Raises:
        InputError: network, images, labels and settings do not fit each other, or ``output`` exists.
        MeasureInterrupted: Ctrl-C was pressed; all whole batches are kept in ``output``.
    """
    settings = settings or MeasureSettings()
    if resume and output is None:
        raise InputError("--resume: expected --output DIR, the folder to go on with")
    settings.check()
    if output is not None and overwrite and not resume:
        check_kept(Path(output), settings.read(model, data))
    session = begin_measurement(model, load_network(model, settings), data, settings, progress=progress)
    if output is not None:
        session.open_folder(Path(output), resume=resume, overwrite=overwrite)
    if isinstance(session, OutputSession):
        return session.measure(_call(model, data, settings) if command is None else command)
    with session.files.interruptible():
        first, *others = session.measure()
        results = MeasureResults(
            model=model,
            split=settings.split,
            typical=first,
            ood=tuple(others),
            preset=settings.preset,
            weights_sha256=session.network.digest,
            folder=session.files.folder,
            command=_call(model, data, settings) if command is None else command,
            environment=environment(),
        )
        if results.folder is not None:
            write(results.folder / "results.json", json.dumps(results.to_dict(), indent=2, allow_nan=False))
            write(results.folder / "report.html", measured_page(results, session.pictures(first)))
    return results


def load_network(model: str, settings: MeasureSettings) -> LoadedModel:
    """Load a network with the weights that the settings name; errors as in `augkit.train.load_model.load_model`."""
    with seeded(settings.seed):  # so that a resumed measurement of an untrained network has the same weights
        return load_model(model, settings.weights, strict=settings.strict, pretrained=settings.pretrained)


def begin_measurement(
    model: str, loaded: LoadedModel, data: str | None, settings: MeasureSettings, *, progress: bool
) -> MeasureSession | OutputSession:
    """Run a network on one image of every set, and return the measurement, of which nothing is written yet.

    Args:
        model: name of the network, for the results.
        loaded: the network.
        data, settings, progress: as in `measure`.

    Raises:
        InputError: network, images, labels and settings do not fit each other.
    """
    protocol = choose_protocol(settings, loaded)
    sets = load_image_sets(settings, data, loaded, protocol)
    typical = next(iter(sets.values()))
    height, width = typical.images.shape[1:]
    if choose_kind(settings, loaded, typical) != LOGITS:
        gallery = load_gallery(settings, loaded, protocol)
        return OutputSession(model, loaded, settings, sets, progress, gallery)
    plan, operator = choose_views(settings, loaded, (height, width))
    if settings.ood_builtin:
        sets |= atypical_sets(typical, plan, settings.seed)
    session = MeasureSession(model, loaded, settings, plan, operator, progress)
    session.begin(sets)
    return session


def _call(model: str, data: str | None, settings: MeasureSettings) -> str:
    """Return the call of `measure` that repeats a measurement, as text."""
    changed = ", ".join(f"{name}={value!r}" for name, value in settings.changed().items())
    return f"augkit.measure.measure({model!r}, {data!r}, MeasureSettings({changed}))"
