"""Patterns of a network's layer judged by a person, and the network without those that were dropped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import check_folders, chosen_layers
from cnn_interp.commands._options import Model, Weights
from cnn_interp.commands._serving import Port, Serve, add_edit, check_port, expect_server, tell_address
from cnn_interp.middle_to_end.answers import check_answers
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, listed, one_of
from interpretkit.commandline.caution import no_better
from interpretkit.commandline.finding import Here
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run
from interpretkit.runs.progress import stepping_aside

if TYPE_CHECKING:
    from cnn_interp.images.sets import LabelledImages
    from cnn_interp.middle_to_end.edit_kept import KeptEdit
    from cnn_interp.middle_to_end.editing import Candidate, EditingSession, Effect
    from cnn_interp.middle_to_end.network_edit import Base
    from cnn_interp.middle_to_end.spurious_cue import CueTrial
    from cnn_interp.networks.network import Network

# As cnn_interp.middle_to_end.patterns, cnn_interp.disentangling.concepts and cnn_interp.images.planted_cue have them;
# written here so that wrong options are refused at once.
_KINDS, _METHODS, _CUES = (
    ("filters", "concepts", "nodes"),
    ("nmf", "sae", "pca", "ica"),
    ("mark", "sticker", "texture"),
)
_CONCEPTS, _NODES, _QUESTIONS = 16, 2, 10
# Scenes with a planted cue; of sixteen, six train the head, five are the person's, on five accuracy is measured.
_SCENES_DRAWN, _PARTS = 192, (6, 5, 5)
_SCENES = ("quadruped", "bird", "person", "car")
# Patterns that are drawn where nothing was said of them.
_SHOWN = 10
_PATTERN_COLUMNS = {
    "pattern": Column("its number"),
    "called": Column("what it is called"),
    "said": Column("what was said of it"),
    "category": Column("to which category it adds most, in the tenth of the images where it adds most"),
    "influence": Column(
        "how much it adds to that there, against the mean of the others", "logits", format="+.2f"
    ),
    "apart": Column("of that, where nothing else speaks for the same answer", "logits", format="+.2f"),
    "blame": Column(
        "what it adds to wrong answers against the right ones, over all images", "logits", format="+.3f"
    ),
    "suspicion": Column(
        "by which they are asked about: blame and apart, each over its largest", format=".2f"
    ),
}
_CLASS_COLUMNS = {
    "category": Column("the category"),
    "images": Column("how many images are of it"),
    "before": Column("accuracy before", format=".1%"),
    "after": Column("accuracy after", format=".1%"),
    "change": Column("the difference", format="+.1%"),
    "mended": Column("wrong answers that are right now"),
    "spoiled": Column("right answers that are wrong now"),
    "answered": Column("how much more often the network answers with it"),
}
_CUE_COLUMNS = {
    "network": Column("what was done"),
    "same": Column(
        "accuracy on new images, the cue with its category as in training",
        heading="as in training",
        format=".1%",
    ),
    "shifted": Column(
        "the same images, the cue with the other categories instead", heading="under shift", format=".1%"
    ),
    "free": Column("the same images without any cue", heading="without the cue", format=".1%"),
    "recovered": Column("share of what was lost under shift that comes back", format=".0%"),
}


@command(
    out="edit",
    example=[
        "interpretkit cnn edit",
        "interpretkit cnn edit --images my-images",
        "interpretkit cnn edit --images my-images --serve",
        "interpretkit cnn edit --images my-images --answers answers.txt --refit",
        "interpretkit cnn edit --images my-images --edit edit --undo",
    ],
)
def edit(
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: Annotated[
        str,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="A layer that gives maps; by default the last of several positions.",
        ),
    ] = "",
    patterns: Annotated[
        str | None,
        typer.Option(
            "--patterns",
            metavar="|".join(_KINDS),
            help="What is judged: the layer's filters, concepts found in it (default), or nodes of an explanatory "
            "graph.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            metavar="N",
            min=1,
            help=f"Concepts ({_CONCEPTS} by default), or nodes for each filter ({_NODES}).",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="|".join(_METHODS),
            help="How concepts are found; nmf by default.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="FOLDER",
            help="A subfolder of images for each category. Named as the network's outputs, the network itself is "
            "edited; "
            "else a linear head is trained on half of them first. Without images, a cue is planted in drawn scenes.",
            show_default=False,
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            metavar="FILE",
            help="A line each: keep 3, drop 12, merge 3 7 as ear, rename 5 wheel, undo. Without, a terminal is asked.",
            show_default=False,
        ),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--edit", metavar="FOLDER", help="An edit to go on from, with its patterns.", show_default=False
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was said last in --edit.")] = False,
    refit: Annotated[
        bool,
        typer.Option("--refit", help="Train the last linear layer anew without what was dropped."),
    ] = False,
    questions: Annotated[
        int | None,
        typer.Option(
            "--questions",
            metavar="N",
            min=1,
            help=f"So many patterns are asked about; {_QUESTIONS} of the planted cue, all in a terminal.",
            show_default=False,
        ),
    ] = None,
    cue: Annotated[
        str | None,
        typer.Option(
            "--cue",
            metavar="|".join(_CUES),
            help="What is planted where no images are given; mark by default.",
            show_default=False,
        ),
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(
            "--scenes",
            metavar="N",
            min=16,
            help=f"How many are drawn where no images are given; {_SCENES_DRAWN} by default.",
            show_default=False,
        ),
    ] = None,
    serve: Serve = False,
    port: Port = 0,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Judge the patterns of a layer, and take those out that a network should not rest on.

    Patterns are shown by the patches where they are strongest, the most suspicious first: those that speak for wrong
    answers, and for an answer where nothing else does. Each is kept, dropped, merged or renamed by a line. The network
    stays as it is; edit.json and edit.safetensors hold the edit, and stand for the edited network wherever a command
    takes --model. Without images, a cue is planted in drawn scenes, found and taken out by a simulated person.
    """
    asked = _Options(
        layer,
        patterns,
        count,
        method,
        images,
        answers,
        earlier,
        undo,
        refit,
        questions,
        cue,
        scenes,
        serve,
        port,
    )
    asked.check(model, weights)
    if images is None:
        return _planted(model, weights, asked, seed, device, quiet, run)
    return _of_images(model, weights, asked, images, seed, device, quiet, run)


@dataclass(frozen=True)
class _Options:
    """What was asked for."""

    layer: str
    patterns: str | None
    count: int | None
    method: str | None
    images: Path | None
    answers: Path | None
    earlier: Path | None
    undo: bool
    refit: bool
    questions: int | None
    cue: str | None
    scenes: int | None
    serve: bool
    port: int

    def check(self, model: str, weights: str) -> None:
        """Refuse options that would do nothing, or that are seen to be wrong before anything is loaded."""
        for name, known in (("patterns", _KINDS), ("method", _METHODS), ("cue", _CUES)):
            if (value := getattr(self, name)) is not None:
                one_of(known, value, name)
        if len(listed(self.layer)) > 1:
            raise InputError(f"layer {self.layer!r}: expected one layer")
        if self.patterns == "filters" and self.count is not None:
            raise InputError(f"count {self.count}: filters are as many as they are; leave it out")
        if self.patterns in ("filters", "nodes") and self.method is not None:
            raise InputError(f"method {self.method!r}: is for concepts; leave it out")
        check_port(self.port, serve=self.serve)
        for name in ("answers", "undo", "questions"):
            if self.serve and getattr(self, name):
                raise InputError(f"{name}: what is said is said on the page of `serve`; leave one out")
        if self.images is None:
            for name in ("answers", "earlier", "undo", "refit", "serve"):
                if getattr(self, name):
                    raise InputError(f"{name}: is for `images`; expected a folder of them, or neither")
            return
        check_folders(self.images)
        for name in ("cue", "scenes"):
            if (value := getattr(self, name)) is not None:
                raise InputError(
                    f"{name} {value!r}: is for drawn scenes, but `images` are given; leave one out"
                )
        if self.answers is not None:
            check_answers(self.answers)
        if self.questions is not None and self.answers is not None:
            raise InputError(
                f"questions {self.questions}: `answers` are given, nobody is asked; leave one out"
            )
        if self.undo and self.earlier is None:
            raise InputError("undo: takes back what was said in `earlier`; expected such")
        if self.earlier is None:
            return
        for name in ("layer", "patterns", "count", "method"):
            if getattr(self, name):
                raise InputError(f"{name} {getattr(self, name)!r}: is as it was in `earlier`; leave it out")
        if (model, weights) != ("mobilenet_v2", "pretrained"):
            raise InputError(f"model {model!r}: is the one of `earlier`; leave it out")


# --------------------------------------------------------------------------------------------------- a user's images


def _of_images(
    model: str, weights: str, asked: _Options, folder: Path, seed: int, device: str, quiet: bool, run: Run
) -> Finding:
    """Edit a network on a user's images."""
    if asked.serve:
        expect_server()
    import numpy as np

    from cnn_interp.images.folders import read_labelled_folders
    from cnn_interp.middle_to_end.answers import read_answers
    from cnn_interp.middle_to_end.edit_kept import KeptEdit
    from cnn_interp.middle_to_end.editing import EditingSession
    from cnn_interp.middle_to_end.network_edit import Base, load_edit
    from cnn_interp.networks.loading import load_network
    from interpretkit.runs.files import sha256

    given = read_labelled_folders(folder)
    values, labels = np.unique(given.labels, return_inverse=True)
    names = tuple(given.category_names[value] if given.category_names else str(value) for value in values)
    given = _relabelled(given, labels, names)
    files = [folder / name for name in given.ids]
    before = None if asked.earlier is None else load_edit(asked.earlier)
    if before is not None:
        network, base = before.base.load(device), before.base
    else:
        network = load_network(model, weights=weights, device=device, seed=seed)
        base = Base.of(network, model, weights, seed)
    network.check_scores()
    layer = before.patterns.layer if before is not None else chosen_layers(network, asked.layer)[0]
    # What was said in a terminal stays, if the command is interrupted; what a script says is no part of the work.
    with run.kept(
        network.digest(),
        files=files,
        without=["device", "answers", "undo", "refit", "questions", "serve", "port"],
    ) as work:
        digests = [sha256(file)[:16] for file in files]
        # What a head was trained on is no measure of it, nor of what is done to it.
        new = np.array([digest not in base.learned for digest in digests])
        if not new.any():
            raise InputError(
                "images: the head of `earlier` was trained on all of them; expected others as well"
            )
        trained = len(new) - int(new.sum())
        given = given.subset(new)
        digests = [digest for digest, one in zip(digests, new, strict=True) if one]
        targets = _targets(network, names)
        if targets is None:
            network, base, given, trained = _with_trained_head(
                network, base, given, digests, layer, work, quiet
            )
            targets = list(range(len(names)))
        if before is not None:
            from cnn_interp.disentangling.features import trunk_features

            maps = trunk_features(network, given, [layer], work / "maps", quiet=quiet)[layer]
            session = EditingSession(network, before, given, targets, maps)
            if asked.undo:
                session.edit = session.edit.undone()
        else:
            session = EditingSession.begin(
                network, base, given, targets, layer, asked.patterns or "concepts",  # type: ignore[arg-type]
                count=asked.count, method=asked.method or "nmf", folder=work / "maps", seed=seed, quiet=quiet,  # type: ignore[arg-type]
            )  # fmt: skip
        first = session.candidates()
        kept = KeptEdit(work / "answers.txt")
        if asked.answers is not None:
            from dataclasses import replace

            said = read_answers(asked.answers, len(session.patterns), session.edit.answers)
            session.edit = replace(session.edit, answers=said, refit=None)
        elif asked.serve:
            kept.resume(session)
            _on_page(session, kept, asked.port)
        elif not asked.undo and not quiet and sys.stdin.isatty() and sys.stderr.isatty():
            kept.resume(session)
            _in_terminal(session, asked.questions, kept, run.out.parent / f"{run.out.name}-patches")
        if asked.refit:
            session.refit()
        found = _headline(session, network, trained)
        found.reads(*files)
        _add_effect(found, session)
        _add_patterns(found, session, first)
    _add_method(found, session, given.name, trained)
    _add_said(found, session)
    if not session.edit.answers:
        return found.next_step(
            "Say in a file which to drop, and apply it:", "interpretkit cnn edit --answers answers.txt --images",
            folder, "--edit", Here(""),
        )  # fmt: skip
    return found.next_step(
        "Use the edited network in any command:", "interpretkit cnn layers --model", Here("edit.json")
    )


def _relabelled(given: LabelledImages, labels: Any, names: tuple[str, ...]) -> LabelledImages:
    from dataclasses import replace

    return replace(given, labels=labels, category_names=names)


def _targets(network: Network, names: Sequence[str]) -> list[int] | None:
    """Return the outputs that folders are named as; None if any is named otherwise."""
    try:
        return [network.target(name) for name in names]
    except InputError:
        return None


def _with_trained_head(
    network: Network,
    base: Base,
    images: LabelledImages,
    digests: Sequence[str],
    layer: str,
    work: Path,
    quiet: bool,
) -> tuple[Network, Base, LabelledImages, int]:
    """Train a linear head on every second image of each category, and return what it is and the other images."""
    import numpy as np

    from cnn_interp.disentangling.features import trunk_features
    from cnn_interp.images.batches import network_inputs
    from cnn_interp.middle_to_end.editing import Above, trained_head

    learn = np.zeros(len(images), dtype=bool)
    for number, name in enumerate(images.category_names):
        rows = np.flatnonzero(images.labels == number)
        if len(rows) < 2:
            raise InputError(f"images: one of {name!r}; expected two at least, one to train a head on")
        learn[rows[::2]] = True
    some = images.subset(learn)
    above = Above(network, layer, network_inputs(network, some, range(min(2, len(some)))))
    maps = trunk_features(network, some, [layer], work / "maps", quiet=quiet)[layer]
    head = trained_head(above.last, above.features(maps), some.labels, len(images.category_names))
    told = [digest for digest, one in zip(digests, learn, strict=True) if one]
    headed, own = base.with_head(network, head, images.category_names, told)
    return headed, own, images.subset(~learn), int(learn.sum())


def _in_terminal(session: EditingSession, questions: int | None, kept: KeptEdit, folder: Path) -> None:
    """Ask in the terminal; what is said is kept line by line."""
    from cnn_interp.middle_to_end.editing_dialogue import converse
    from cnn_interp.middle_to_end.editing_pictures import write_strip

    def ask(prompt: str) -> str | None:
        with stepping_aside():
            print(prompt, end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
        return line.rstrip("\n") if line else None

    converse(
        session, ask, lambda line: print(line, file=sys.stderr, flush=True),
        lambda number: write_strip(session, number, folder), questions=questions,
        said=lambda: kept.keep(session.edit),
    )  # fmt: skip


def _on_page(session: EditingSession, kept: KeptEdit, port: int) -> None:
    """Ask on a page until somebody ends it there; what is said is kept line by line."""
    from cnn_interp.middle_to_end.page.editing_room import EditingRoom
    from cnn_interp.middle_to_end.page.serving import serve

    serve(editing=EditingRoom(lambda: session, kept=kept), port=port, ready=tell_address)


# ----------------------------------------------------------------------------------------------------- a planted cue


def _planted(
    model: str, weights: str, asked: _Options, seed: int, device: str, quiet: bool, run: Run
) -> Finding:
    """Plant a cue in drawn scenes, let a simulated person judge patterns, and show what that does."""
    from cnn_interp.images.articulated import articulated_images
    from cnn_interp.middle_to_end.network_edit import Base
    from cnn_interp.middle_to_end.spurious_cue import (
        CUELESS,
        DROPPED,
        ONLY_REFIT,
        PLAIN,
        RANDOM,
        REFIT,
        CuePool,
        CueSettings,
        cue_trial,
    )
    from cnn_interp.networks.loading import load_network

    drawn = asked.scenes or _SCENES_DRAWN
    train, user = (drawn * part // sum(_PARTS) for part in _PARTS[:2])
    settings = CueSettings(
        kind=asked.cue or "mark", train=train, user=user, test=drawn - train - user, count=asked.count,  # type: ignore[arg-type]
        patterns=asked.patterns or "concepts", method=asked.method or "nmf", answers=asked.questions or _QUESTIONS,  # type: ignore[arg-type]
    )  # fmt: skip
    network = load_network(model, weights=weights, device=device, seed=seed)
    network.check_scores()
    layer = chosen_layers(network, asked.layer)[0]
    images = articulated_images(
        drawn, seed=seed, side=network.size, negatives=0.0, categories=_SCENES, quiet=quiet
    )
    with run.kept(network.digest(), without=["device", "questions", "count", "method", "patterns"]) as work:
        pool = CuePool(
            network, images, images.categories, images.category_names, settings.kind, layer, seed=seed,
            folder=work / "maps", quiet=quiet,
        )  # fmt: skip
        trial = cue_trial(
            pool, settings, Base.of(network, model, weights, seed), seed=seed,
            methods=(PLAIN, DROPPED, REFIT, RANDOM, ONLY_REFIT, CUELESS), quiet=quiet,
        )  # fmt: skip
        session = trial.session
        before, after = trial.accuracy[PLAIN], trial.accuracy[REFIT]
        name = pool.names[trial.category]
        said = trial.found_at
        answers = len(trial.asked)
        told = (
            f"The cue's pattern was dropped at answer {said:.0f} of {answers}."
            if said < float("inf")
            else f"None of the patterns dropped in {answers} answers shows the cue in half of its patches."
        )
        found = Finding(
            f"A {settings.kind} that went with “{name}”, taken out by {answers} answers",
            f"A linear head on {network.name} was trained on {settings.train} drawn scenes; {settings.within:.0%} of "
            "those "
            f"with a {name} show a {settings.kind}, and {settings.elsewhere:.0%} of the others. Where it goes with the "
            f"others instead, accuracy falls from {before.same:.0%} to {before.shifted:.0%}. A simulated person who "
            "only "
            f"says whether patches show the object judged the most suspicious patterns of `{layer}`. {told} Without "
            "what "
            f"was dropped, and with the head trained anew on the person's {settings.user} images, accuracy under "
            "shift is "
            f"{after.shifted:.0%}.",
        )
        found.number("accuracy_shifted", before.shifted, "accuracy under shift, as trained", format=".1%")
        found.number(
            "accuracy_shifted_edited", after.shifted, "the same, edited", format=".1%",
            note=f"{trial.accuracy[CUELESS].shifted:.1%} where the head never saw the cue",
        )  # fmt: skip
        found.number("recovered", trial.recovered(REFIT), "of what was lost comes back", format=".0%")
        found.number(
            "lost_elsewhere", 100 * trial.lost_elsewhere(REFIT), "lost without the cue", unit="points", format="+.1f",
            note="below 0 is a gain",
        )  # fmt: skip
        found.number("answers", answers, note=f"patterns dropped: {len(session.edit.dropped)}")
        found.number(
            "found_at", said if said < float("inf") else None, "answer that dropped the cue", on_card=False
        )
        if trial.lost <= 0:
            found.warn(
                "The network does not rest on the cue: nothing is lost under shift that could come back."
            )
        else:
            found.warn(
                *no_better(
                    "accuracy under shift after the edit", after.shifted, "that of the head refit alone",
                    trial.accuracy[ONLY_REFIT].shifted,
                )
            )  # fmt: skip
        found.section(
            "What the answers are worth",
            f"Accuracy on {settings.test} scenes that neither head nor person has seen.",
        ).table("methods.csv", _cue_rows(trial), _CUE_COLUMNS, in_terminal=True)
        _add_asked(found, session, trial)
        _add_effect(found, session)
        _add_patterns(found, session, trial.first)
    _add_method(found, session, f"drawn scenes with a {settings.kind}", settings.train)
    _add_said(found, session)
    return found.next_step(
        "Use the edited network in any command:", "interpretkit cnn layers --model", Here("edit.json")
    )


def _cue_rows(trial: CueTrial) -> list[dict[str, Any]]:
    return [
        {
            "network": name,
            "same": one.same,
            "shifted": one.shifted,
            "free": one.free,
            "recovered": trial.recovered(name),
        }
        for name, one in trial.accuracy.items()
    ]


def _add_asked(found: Finding, session: EditingSession, trial: CueTrial) -> None:
    """Show what was asked and answered."""
    from cnn_interp.middle_to_end.editing_pictures import gallery

    section = found.section(
        "Questions and answers",
        "Each row: a pattern where it is strongest, in the order in which the person was asked; below its number the "
        "answer.",
    )
    figure = gallery(session, [one.number for one in trial.asked])
    if figure is not None:
        section.figure(
            "asked.png", figure, "The patterns that were judged.", alt="Patches of the patterns judged."
        )
    section.table(
        "asked.csv",
        [
            {"pattern": one.number, "suspicion": one.suspicion, "answer": one.verdict, "cue": one.cue}
            for one in trial.asked
        ],
        {
            "pattern": Column("its number"),
            "suspicion": Column("when it was asked about", format=".2f"),
            "answer": Column("what was said"),
            "cue": Column("whether half of its patches or more show the cue, by the masks"),
        },
    )


# ------------------------------------------------------------------------------------------------------- what is told


def _headline(session: EditingSession, network: Network, trained: int) -> Finding:
    effect, now = session.effect(), session.edit.standing
    before, after = effect.accuracy
    dropped, answers = len(now.dropped), len(session.edit.answers)
    layer = session.patterns.layer
    of = (
        f"a linear head on {network.name}, trained on {trained} of the images, for their folders are not named as "
        "outputs "
        "of the network"
        if trained
        else network.name
    )
    lead = f"{len(session.patterns)} {session.patterns.kind} of `{layer}` in {of}. "
    lead += (
        f"After {answers} answers {dropped} are taken out: accuracy on {len(effect.labels)} images goes from "
        f"{before:.1%} to {after:.1%}; answers changed: {len(effect.changed)}."
        if answers
        else f"Accuracy on {len(effect.labels)} images is {before:.1%}. Nothing was said yet; the most suspicious come "
        "first below."
    )
    what = "1 pattern" if dropped == 1 else f"{dropped} patterns"
    found = Finding(f"{what} of {layer} taken out of {network.name}", lead)
    found.number("accuracy_before", before, "accuracy before", format=".1%")
    found.number(
        "accuracy_after", after, "accuracy after", format=".1%", note=f"on {len(effect.labels)} images"
    )
    found.number("changed", len(effect.changed), "answers changed")
    found.number("answers", answers, note=f"patterns dropped: {dropped}")
    if session.measured_on_learned:
        found.warn(
            "The last layer was trained anew in an earlier edit, maybe on images that accuracy is measured on here."
        )
    return found


def _add_effect(found: Finding, session: EditingSession) -> None:
    """Show what the edit does, category by category, and images whose answer changes."""
    from cnn_interp.middle_to_end.editing_pictures import changes_figure

    effect: Effect = session.effect()
    section = found.section(
        "What the edit does", f"On the {len(effect.labels)} images that patterns were judged on."
    )
    section.table("categories.csv", effect.rows(), _CLASS_COLUMNS)
    if len(effect.changed):
        section.figure(
            "changed.png", changes_figure(session, effect),
            "Images whose answer changes, before → after; green where it is right now.",
            alt="Images whose answer changes.",
        )  # fmt: skip


def _add_patterns(found: Finding, session: EditingSession, before: Sequence[Candidate]) -> None:
    """Show patterns by their patches, and all of them in a table, as they were before anything was said."""
    from cnn_interp.middle_to_end.editing_pictures import candidates_figure, gallery

    now = session.edit.standing
    left = {one.number: one for one in session.candidates()}
    rows = []
    for one in [
        *before,
        *(candidate for number, candidate in left.items() if number not in {b.number for b in before}),
    ]:
        if one.number in now.members:
            rows.append(
                {
                    "pattern": one.number,
                    "called": now.called(one.number),
                    "said": now.judged.get(one.number, ""),
                    "category": session.names[one.category],
                    "influence": one.influence,
                    "apart": one.apart,
                    "blame": one.blame,
                    "suspicion": one.suspicion,
                }
            )
    section = found.section(
        "Patterns",
        "The most suspicious first. Those that were dropped are not measured any more once they are out.",
    )
    judged = [number for number in now.judged if number in now.members]
    numbers = list(dict.fromkeys([*judged, *(int(row["pattern"]) for row in rows)]))[
        : max(_SHOWN, len(judged))
    ]
    figure = gallery(session, numbers)
    if figure is not None:
        section.figure(
            "patterns.png", figure, "Each row: a pattern where it is strongest; below its number what was said of it.",
            alt="Patches of patterns.",
        )  # fmt: skip
    if before:
        section.figure("suspicion.png", candidates_figure(session, before), "What makes patterns suspicious.")
    section.table("patterns.csv", rows, _PATTERN_COLUMNS, "The file holds all.", most=30)


def _add_method(found: Finding, session: EditingSession, data: str, trained: int) -> None:
    how = {
        "filters": "A filter is taken out by setting its map to its mean over the images.",
        "concepts": "Concepts are taken out by projection: what responses are more than their mean, in the directions "
        "of "
        "the concepts, is taken off at every position.",
        "nodes": "A node is taken out by bringing its filter to its mean about the place where the node is in that "
        "image.",
    }[session.patterns.kind]
    found.section(
        "How it is measured",
        f"{how} What a pattern adds to an output is the gradient by the layer's maps times what goes with the "
        "pattern: the "
        "fall of the output to first order, and exactly where the rest of the network is linear. Blame is what it "
        "adds to "
        "the network's answer more than to the right one, summed over wrong answers. Apart is what it adds where "
        "nothing "
        "else speaks for the same answer: one less the cosine of both maps. "
        + (f"The head was trained on {trained} other images. " if trained else "")
        + (
            "The last layer was trained anew; what it says of an image here is said by one trained without that image. "
            if session.edit.refit is not None and not session.measured_on_learned
            else ""
        )
        + f"Data: {data}.",
    )


def _add_said(found: Finding, session: EditingSession) -> None:
    """Keep the edit, and what was said."""
    add_edit(found, session.edit)
    now = session.edit.standing
    found.values["said"] = [answer.line() for answer in session.edit.answers]
    found.values["dropped"] = list(now.dropped)
    found.values["names"] = {str(number): name for number, name in now.names.items()}
