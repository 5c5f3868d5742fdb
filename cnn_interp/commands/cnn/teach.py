"""A part taught to a network that stays as it is, by answers to its questions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import ARTICULATED, PART_KINDS, chosen_layers, spread
from cnn_interp.commands._options import Model, UnitLayers, Weights
from cnn_interp.commands._serving import Port, Serve, add_edit, check_port, expect_server, tell_address
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, kind_and_path
from interpretkit.commandline.caution import no_better
from interpretkit.commandline.finding import Here
from interpretkit.commandline.options import one_of
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run
from interpretkit.runs.progress import stepping_aside

if TYPE_CHECKING:
    import numpy as np

    from cnn_interp.images.part_images import PartImages
    from cnn_interp.images.sets import Images
    from cnn_interp.middle_to_end.annotators import Truth
    from cnn_interp.middle_to_end.dialogue import Dialogue, Question
    from cnn_interp.middle_to_end.edit_kept import KeptEdit
    from cnn_interp.middle_to_end.editing import EditingSession
    from cnn_interp.middle_to_end.journal import Entry, Journal, Log
    from cnn_interp.middle_to_end.lesson import Lesson
    from cnn_interp.middle_to_end.simulation import Step
    from cnn_interp.networks.network import Network

_CATEGORY, _PART = "quadruped", "head"
ORDERS = ("active", "random", "unsure", "published")
FACINGS = ("both", "either")
# Answers of a simulated annotator, if nobody says how many.
_ANSWERS = 12
# Images, if nobody says how many: drawn ones, and others.
_DRAWN, _MOST = 140, 500
# Of images whose part is known, so many are kept to measure the error on.
_KEPT = 1 / 3
# Pictures kept in memory, since each is asked for several times: about 100 MB.
_HELD = 600
# Parsed images shown.
_SHOWN = 8
JOURNAL = "journal.jsonl"
# The folder of what was said of the network's patterns.
_EDIT = "edit"
_ANSWER_COLUMNS = {
    "answers": Column("which answer"),
    "image": Column("the image asked about"),
    "verdict": Column("what was said"),
    "shown": Column("images that were said to show the part so far"),
    "templates": Column("templates of the graph"),
    "error": Column("mean distance to the part over the diagonal, on images kept for that", format=".3f"),
    "expected": Column("what the graph expects it to be on the images left", format=".3f"),
}
_SAID_COLUMNS = {
    "number": Column("which entry of the journal"),
    "image": Column("the image asked about"),
    "verdict": Column("what was said; skipped if nothing was"),
    "row": Column("row of the part's centre", "px"),
    "column": Column("column of the part's centre", "px"),
    "template": Column("template that it is of"),
}
_IMAGE_COLUMNS = {
    "image": Column("the image"),
    "asked": Column("whether it was asked about"),
    "chance": Column("how likely it shows the part", format=".2f"),
    "row": Column("row of the part's centre", "px"),
    "column": Column("column of the part's centre", "px"),
    "top": Column("first row of its box", "px"),
    "left": Column("first column of its box", "px"),
    "bottom": Column("last row of its box", "px"),
    "right": Column("last column of its box", "px"),
    "score": Column("how well the part is seen: log of the sum of exp(score) over all parses", format=".2f"),
    "spread": Column("standard deviation of the centre over all parses", "px", format=".1f"),
    "template": Column("the best parse's template"),
}


@dataclass(frozen=True)
class _About:
    """What a dialogue is about, as its journal says."""

    data: str
    category: str
    part: str
    model: str
    weights: str
    layer: str
    images: int
    facing: str
    order: str
    seed: int


@command(
    out="teach",
    example=[
        "interpretkit cnn teach",
        "interpretkit cnn teach --data photos --part head",
        "interpretkit cnn teach --data photos --part head --serve",
        "interpretkit cnn teach --data animal-part=animal-part --category cat --simulate --error-rate 0.1",
        "interpretkit cnn teach --resume teach",
    ],
)
def teach(
    run: Run,
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: UnitLayers = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="FOLDER|KIND=PATH",
            help="Images to ask about: a folder without any labels; or, to have the answers simulated, "
            f"{', '.join(PART_KINDS)} =FOLDER, or 'articulated', which the project draws itself.",
        ),
    ] = ARTICULATED,
    category: Annotated[
        str,
        typer.Option(
            "--category", metavar="NAME", help="Kind of object, of data with kinds; by default the first."
        ),
    ] = "",
    part: Annotated[str, typer.Option("--part", metavar="NAME", help="The part to teach.")] = _PART,
    simulate: Annotated[
        bool | None,
        typer.Option(
            "--simulate/--ask",
            help="Who answers: an annotator who knows where the part is, or you. By default the former for drawn "
            "images.",
            show_default=False,
        ),
    ] = None,
    error_rate: Annotated[
        float,
        typer.Option("--error-rate", metavar="SHARE", help="Share of the simulated answers that are wrong."),
    ] = 0.0,
    answers: Annotated[
        int | None,
        typer.Option(
            "--answers",
            metavar="N",
            min=1,
            help=f"Answers in all, at most; {_ANSWERS} if they are simulated, else until you stop.",
            show_default=False,
        ),
    ] = None,
    order: Annotated[
        str,
        typer.Option("--order", metavar="|".join(ORDERS), help="What is asked next."),
    ] = ORDERS[0],
    facing: Annotated[
        str,
        typer.Option(
            "--facing",
            metavar="|".join(FACINGS),
            help="Whether a template looks the same both ways, or faces one way.",
        ),
    ] = FACINGS[0],
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            metavar="N",
            min=4,
            show_default=False,
            help=f"How many images, spread over the data; at most {_DRAWN} drawn, {_MOST} others by default.",
        ),
    ] = None,
    serve: Serve = False,
    port: Port = 0,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume", metavar="RUN", help="An earlier result to go on from, with its images and settings."
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Teach a part to a network by answering its questions.

    The network stays as it is; an And-Or graph of the part grows on it from every answer. Of the images without
    answer, the one is asked about next whose answer is expected to teach the most. Answers are on the disk before they
    are made use of. Writes journal.jsonl, said.csv, images.csv and parses.npz (what is found in every image), the graph
    (part.npz, part.json, part.graphml) and report.html.
    """
    count = images or (_DRAWN if data == ARTICULATED else _MOST)
    about = _About(data, category, part, model, weights, layer, count, facing, order, seed)
    if resume is not None:
        about = _resumed(resume, about)
    one_of(ORDERS, about.order, "order")
    one_of(FACINGS, about.facing, "facing")
    if not 0 <= error_rate <= 1:
        raise InputError(f"error_rate {error_rate}: expected 0 to 1")
    kind, path = _source(about.data)
    simulated = (kind == ARTICULATED and not serve) if simulate is None else simulate
    if serve and simulated:
        raise InputError("simulate: nobody is asked on a page then; expected --serve or --simulate")
    check_port(port, serve=serve)
    if serve and answers is not None:
        raise InputError(
            f"answers {answers}: a page asks until it is stopped; expected --serve without --answers"
        )
    if simulated and kind == "images":
        raise InputError(
            f"simulate: {about.data} has no annotated parts; expected {', '.join(PART_KINDS)} =FOLDER"
        )
    if error_rate and not simulated:
        raise InputError(f"error_rate {error_rate}: is for simulated answers; expected it with --simulate")
    if serve:
        expect_server()
    from cnn_interp.disentangling.part_cells import part_layers
    from cnn_interp.middle_to_end.journal import Memory
    from cnn_interp.middle_to_end.lesson import prepare_lesson
    from cnn_interp.networks.loading import load_network

    chosen, files = _images(kind, path, about)
    network = load_network(about.model, weights=about.weights, device=device, seed=about.seed)
    known = _known(chosen, about, network.size) if simulated else None
    fine = chosen_layers(network, about.layer) if about.layer else part_layers(network)
    deep = chosen_layers(network, "")[0]
    without = ["device", "answers", "error_rate", "simulate", "resume", "serve", "port"]
    with run.kept(network.digest(), asdict(about), files=files, without=without) as work:
        lesson = prepare_lesson(
            network,
            chosen,
            fine,
            deep,
            work,
            candidates=None if known is None else known.candidates,
            quiet=quiet,
        )
    said = {**asdict(about), "network": network.digest(), "shown": lesson.key}
    earlier = _earlier(resume, said)
    if known is None:
        with _journal(run, said, earlier) as log:
            talk = _dialogue(lesson, about, log)
            patterns = _patterns(run, network, about, chosen, deep, resume)
            if serve:
                _serve(talk, chosen, lesson, network, log.path, patterns, port)
            else:
                _converse(run, talk, chosen, answers)
            found = _finding(talk, chosen, about, fine, said, ())
            _add_patterns(found, patterns)
    else:
        talk = _dialogue(lesson, about, Memory(earlier))
        most = _ANSWERS if answers is None else answers
        steps = _simulated(talk, known, error_rate, most, about.seed)
        found = _finding(talk, chosen, about, fine, said, steps)
        if steps and about.order != "random":
            chance = _dialogue(lesson, replace(about, order="random"), Memory(earlier))
            _compared(found, about, steps, _simulated(chance, known, error_rate, most, about.seed))
    return found.reads(*files)


# --------------------------------------------------------------------------------------------------- what it is about


def _source(data: str) -> tuple[str, Path | None]:
    """Return the kind of data that an option names, and where they are."""
    if "=" not in data and data != ARTICULATED:
        folder = Path(data).expanduser()
        if not folder.is_dir():
            raise InputError(
                f"data {data!r}: no such folder; expected a folder of images, {ARTICULATED}, or "
                f"{', '.join(PART_KINDS)} =FOLDER"
            )
        return "images", folder
    return kind_and_path(data, PART_KINDS, "data", words=[ARTICULATED])


def _resumed(earlier: Path, given: _About) -> _About:
    """Return what an earlier dialogue was about; an option given now must say the same."""
    from cnn_interp.middle_to_end.journal import read_about

    about = read_about(earlier / JOURNAL)
    plain = _About(ARTICULATED, "", _PART, "mobilenet_v2", "pretrained", "", _DRAWN, FACINGS[0], ORDERS[0], 0)
    told: dict[str, Any] = {}
    for entry in fields(_About):
        value = getattr(given, entry.name)
        if entry.name not in about:
            raise InputError(
                f"{earlier / JOURNAL}: says nothing of {entry.name}; expected a dialogue's journal"
            )
        if value not in (getattr(plain, entry.name), about[entry.name]):
            raise InputError(
                f"{entry.name} {value!r}: the dialogue of {earlier} has {about[entry.name]!r}; expected that, or "
                "nothing"
            )
        told[entry.name] = about[entry.name]
    return _About(**told)


def _earlier(earlier: Path | None, said: dict[str, Any]) -> list[Entry]:
    """Return the entries of an earlier result, seen to be of the same images and network."""
    if earlier is None:
        return []
    from cnn_interp.middle_to_end.journal import read_journal

    return read_journal(earlier / JOURNAL, said)


@contextmanager
def _journal(run: Run, said: dict[str, Any], earlier: Sequence[Entry]) -> Iterator[Journal]:
    """Give the journal of a dialogue with a person: beside the result, until that is in place."""
    from cnn_interp.middle_to_end.journal import open_journal

    place = run.out.with_name(f"{run.out.name}.{JOURNAL}")
    with open_journal(place, said, earlier) as log:
        if len(log.entries) > len(earlier):
            print(f"Going on from {len(log.entries)} entries in {place}.", file=sys.stderr)
        yield log
    run.afterwards(lambda: place.unlink(missing_ok=True))


def _images(kind: str, path: Path | None, about: _About) -> tuple[Images, list[Path]]:
    """Return the images, and the files that say what they are."""
    if kind == "images":
        from cnn_interp.images.files import image_files
        from cnn_interp.images.folders import read_folder

        assert path is not None
        if about.category:
            raise InputError(
                f"category {about.category!r}: a plain folder has none; expected it for data with kinds"
            )
        plain = read_folder(path)
        rows = spread(len(plain), about.images)
        paths = image_files(path)
        return _held(plain.subset(rows)), [paths[row] for row in rows]
    if path is None:
        from cnn_interp.images.articulated import articulated_images

        drawn = articulated_images(
            about.images, seed=about.seed, side=224, negatives=0.3, occlusion=0.0,
            categories=(about.category or _CATEGORY,),
        )  # fmt: skip
        _known_part(drawn, about.part)
        return _held(drawn.cropped()), []
    import numpy as np

    from cnn_interp.images.part_images import PartImages
    from cnn_interp.images.reading import read, read_parts

    found = read_parts(kind, path, unannotated=True)
    _known_part(found, about.part)
    category = about.category or found.category_names[0]
    one_of(found.category_names, category, "category")
    whole = read(kind, path)
    assert isinstance(whole, PartImages)
    if (whole.categories < 0).any():
        # Images of none of the objects show no part either.
        found = whole.cropped() if whole.boxes is not None else whole
    # Of the others only those can be answered for whose part is known; half as many without the object.
    own = found.categories == found.category_names.index(category)
    known = np.flatnonzero(
        own & (found.annotated[:, found.part_names.index(about.part)] | found.absence_known)
    )
    without = np.flatnonzero(found.categories < 0)
    count = round(about.images / 1.5) if len(without) else about.images
    rows = known[spread(len(known), count)]
    rows = np.concatenate([rows, without[spread(len(without), len(rows) // 2)]])
    return _held(found.subset(np.sort(rows))), [path / "landmarks.csv"] if kind == "animal-part" else []


def _known_part(images: PartImages, part: str) -> None:
    one_of(images.part_names, part, "part")


def _held(images: Any) -> Any:
    """Return the set with its pictures kept in memory once they were made."""
    return replace(images, load=lru_cache(maxsize=_HELD)(images.load))


@dataclass(frozen=True, eq=False)
class _Known:
    """Where the part is, which images may be asked about, and which the error is measured on."""

    truth: Truth
    candidates: np.ndarray
    kept: np.ndarray


def _known(images: Images, about: _About, side: int) -> _Known:
    """Return what a simulated annotator knows; images that the error is measured on are kept from the others."""
    import numpy as np

    from cnn_interp.images.batches import landmarks_in_inputs
    from cnn_interp.images.part_images import PartImages, box_of
    from cnn_interp.middle_to_end.annotators import Truth
    from interpretkit.training.seeds import numpy_generator

    assert isinstance(images, PartImages)
    part = images.part_names.index(about.part)
    where = landmarks_in_inputs(images, side)[:, part]
    shown = np.flatnonzero(~np.isnan(where[:, 0]))
    if len(shown) < 3:
        raise InputError(
            f"part {about.part!r}: {len(shown)} images show it; expected 3 or more (see --images)"
        )
    sizes = np.full((len(images), 2), np.nan)
    for row in shown if images.has_masks else ():
        mask = images.masks(int(row))[part]
        top, left, bottom, right = box_of(mask)
        sizes[row] = (bottom - top + 1) * side / mask.shape[0], (right - left + 1) * side / mask.shape[1]
    kin = np.arange(len(images)) if images.groups is None else images.groups
    if len(np.unique(kin[shown])) < 3:
        kin = np.arange(len(images))
    kept: list[int] = []
    for group in numpy_generator(about.seed, "kept").permutation(np.unique(kin[shown])):
        if len(kept) >= _KEPT * len(shown):
            break
        kept += np.flatnonzero(kin == group).tolist()
    aside = np.intersect1d(kept, shown)
    return _Known(Truth(where, sizes), np.setdiff1d(np.arange(len(images)), kept), aside)


# ------------------------------------------------------------------------------------------------------ what is said


def _dialogue(lesson: Lesson, about: _About, log: Log) -> Dialogue:
    from cnn_interp.disentangling.part_graph import PartSettings

    facing: Any = about.facing
    settings = PartSettings(facing=facing)
    return lesson.dialogue(about.part, order=about.order, log=log, settings=settings, seed=about.seed)


def _simulated(talk: Dialogue, known: _Known, error_rate: float, answers: int, seed: int) -> list[Step]:
    from cnn_interp.middle_to_end.annotators import ErringAnnotator, TrueAnnotator
    from cnn_interp.middle_to_end.simulation import taught

    annotator = TrueAnnotator(talk, known.truth)
    who = ErringAnnotator(annotator, talk, error_rate, seed) if error_rate else annotator
    return taught(talk, who, answers, known.kept, known.truth.positions)


def _serve(
    talk: Dialogue,
    images: Images,
    lesson: Lesson,
    network: Network,
    journal: Path,
    patterns: _Patterns,
    port: int,
) -> None:
    from cnn_interp.middle_to_end.page.classroom import Classroom
    from cnn_interp.middle_to_end.page.editing_room import EditingRoom
    from cnn_interp.middle_to_end.page.serving import serve

    room = Classroom(talk, images, encode=lambda picture: lesson.encode(network, picture), journal=journal)
    editing = EditingRoom(patterns.session, kept=patterns.kept, labelled=False)
    serve(room, editing=editing, port=port, ready=tell_address)


class _Patterns:
    """The network's patterns on the images of the dialogue, found when somebody wants to see them."""

    def __init__(self, begin: Callable[[], EditingSession], kept: KeptEdit, *, earlier: bool) -> None:
        self._begin, self.kept, self._earlier = begin, kept, earlier
        self._begun: EditingSession | None = None

    def session(self) -> EditingSession:
        """Return the session, with what was said in it before."""
        if self._begun is None:
            session = self._begin()
            self.kept.resume(session)
            self._begun = session
        return self._begun

    def said(self) -> EditingSession | None:
        """Return the session if anything was said in it, now or before the command was interrupted."""
        if self._begun is None and not (self._earlier or self.kept.path.is_file()):
            return None
        session = self.session()
        return session if session.edit.answers else None


def _patterns(
    run: Run, network: Network, about: _About, images: Images, layer: str, resume: Path | None
) -> _Patterns:
    from cnn_interp.middle_to_end.edit_kept import KeptEdit

    before = resume / _EDIT if resume is not None and (resume / _EDIT).is_dir() else None

    def begin() -> EditingSession:
        from cnn_interp.middle_to_end.editing import EditingSession
        from cnn_interp.middle_to_end.network_edit import Base, load_edit

        base = Base.of(network, about.model, about.weights, about.seed)
        edit = None if before is None else load_edit(before)
        return EditingSession.unlabelled(network, base, images, layer, edit=edit, seed=about.seed)

    kept = KeptEdit(run.out.with_name(f"{run.out.name}.edit.txt"))
    run.afterwards(lambda: kept.path.unlink(missing_ok=True))
    return _Patterns(begin, kept, earlier=before is not None)


def _add_patterns(found: Finding, patterns: _Patterns) -> None:
    """Keep what was said of the network's patterns, if anything was."""
    session = patterns.said()
    if session is None:
        return
    from cnn_interp.middle_to_end.editing_pictures import changes_figure, gallery

    effect, now = session.effect(), session.edit.standing
    add_edit(found, session.edit, f"{_EDIT}/")
    found.number("answers_kept", effect.accuracy[1], "of the network's answers stay", format=".1%")
    section = found.section(
        "What the network goes without",
        f"Patterns of `{session.patterns.layer}` that were judged: {len(now.judged)}, dropped: {len(now.dropped)}. "
        f"Of {len(effect.labels)} images {len(effect.changed)} are answered otherwise by the edited network, which is "
        f"in `{_EDIT}/` and may be given to any command as `--model {_EDIT}/edit.json`.",
    )
    figure = gallery(session, [number for number in now.judged if number in now.members])
    if figure is not None:
        section.figure(
            "judged.png", figure, "Each row: a pattern where it is strongest; below its number what was said."
        )
    if len(effect.changed):
        section.figure(
            "changed.png", changes_figure(session, effect), "Images whose answer changes, before → after."
        )


def _typed() -> str:
    """Return a line that was typed; nothing where nobody can type."""
    try:
        with stepping_aside():
            return sys.stdin.readline() if sys.stdin else ""
    except OSError:
        return ""


def _converse(run: Run, talk: Dialogue, images: Images, answers: int | None) -> None:
    from cnn_interp.middle_to_end.pictures import question_figure
    from cnn_interp.middle_to_end.terminal import converse

    def draw(question: Question) -> Any:
        return question_figure(images, question.image, question.parse, talk.cells.image)

    picture = run.out.with_name(f"{run.out.name}-question.png")
    try:
        converse(
            talk, draw, lambda image: images.ids[image], picture, _typed,
            lambda line: print(line, file=sys.stderr, flush=True), answers=answers,
        )  # fmt: skip
    finally:
        picture.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------ what is found


def _finding(
    talk: Dialogue,
    images: Images,
    about: _About,
    layers: Sequence[str],
    said: dict[str, Any],
    steps: Sequence[Step],
) -> Finding:
    """Return what was said, the graph that grew from it, and where the part is in every image."""
    import numpy as np

    from cnn_interp.disentangling.part_graph import FILES, infer
    from cnn_interp.disentangling.part_pictures import parsed_figure, pattern_figure
    from cnn_interp.middle_to_end.journal import write_journal
    from cnn_interp.middle_to_end.pictures import asked_figure

    entries, notes, graph = talk.entries, talk.annotations, talk.graph
    shown = sum(note.position is not None for note in notes)
    count = f"{len(entries)} answer{'s' * (len(entries) != 1)}"
    found = Finding(f"A part taught by {count}: {about.part}")
    found.number("answers", len(entries), "answers")
    found.number("shown", shown, "images said to show it", on_card=False)
    found.file(JOURNAL, lambda path: write_journal(path, said, talk.log))
    found.table("said.csv", _said_rows(talk, images), _SAID_COLUMNS)
    going = ("Go on from here:", "interpretkit cnn teach --resume", Here())
    if graph is None:
        found.lead = f"Nobody showed the {about.part}, so that there is no graph of it."
        found.warn(f"No image was said to show the {about.part}: nothing was learned.")
        found.section("How it works", _HOW)
        return found.next_step(*going)
    parses = infer(graph, talk.cells)
    expected = talk.expected_error
    found.number("templates", len(graph.templates), "template" if len(graph.templates) == 1 else "templates")
    found.number(
        "expected_error", float("nan") if expected is None else expected, "expected error", format=".3f",
        note="what the graph thinks of the images left, over the diagonal",
    )  # fmt: skip
    found.lead = (
        f"{count}, {shown} of them about images that show the {about.part}: a graph of {len(graph.templates)} "
        f"template{'s' * (len(graph.templates) != 1)}."
    )
    if steps:
        found.number(
            "error", steps[-1].error, "error", format=".3f", note="over the diagonal, on images kept for that"
        )
        found.lead += f" On images kept for that it finds the part to {steps[-1].error:.3f} of the diagonal."
    asked = found.section(
        "What was asked", "In the order of the answers. Ring: where the part was said to be."
    )
    order = {entry.image: place for place, entry in enumerate(entries)}
    asked.figure(
        "asked.png",
        asked_figure(images, sorted(notes, key=lambda note: order[note.image]), talk.cells.image),
        "Images that were asked about, with what was said of them.",
    )
    left = talk.candidates[~talk.standing.closed]
    if len(left):
        unsure = left[
            np.argsort(-(talk.standing.spread * talk.standing.chances)[~talk.standing.closed], kind="stable")
        ]
        rows = [int(row) for row in unsure[:_SHOWN]]
        found.section("What it is least sure of").figure(
            "unsure.png",
            parsed_figure(images, rows, parses.subset(rows), graph),
            f"Images not asked about that may well show the {about.part}, where it is least sure. Cross and box: where "
            "it is found. Dots: the patterns that say most.",
        )
    patterns = found.section("What it looks for")
    for number in range(len(graph.templates)):
        if (parses.templates == number).any():
            patterns.figure(
                f"template-{number}.png",
                pattern_figure(images, range(len(images)), parses, graph, number),
                f"The patterns of template {number} that say most: how far from the part (down, right, in cells), how "
                "much each says, and the places where it is clearest.",
            )
    found.section(
        "How it works", _HOW + f" Layers {', '.join(f'`{one}`' for one in layers)} of {about.model}, frozen."
    )
    found.table("images.csv", _image_rows(talk, images, parses), _IMAGE_COLUMNS)
    chances = np.full(len(images), np.nan)
    chances[talk.candidates] = talk.standing.chances
    found.arrays(
        "parses.npz", centres=parses.centres, boxes=parses.boxes, scores=parses.scores, spread=parses.spread,
        templates=parses.templates, flipped=parses.flipped, chances=chances, images=list(images.ids),
    )  # fmt: skip
    for file in FILES:
        found.file(f"part/{file}", graph.write)
    return found.next_step(*going)


_HOW = (
    "A part (OR) has templates, a template (AND) has patterns at places about the part, a pattern (OR) is at the best "
    "of a few cells; there weighted units say how well it is seen. The graph is learned anew from all answers. Asked "
    "next is the image that teaches most: one of many like it that may well show the part, where the graph is unsure, "
    "and that nothing shown so far is like. After Zhang, Cao, Wu, Zhu, CVPR 2017."
)


def _compared(found: Finding, about: _About, steps: Sequence[Step], chance: Sequence[Step]) -> None:
    """Add how the error fell, beside what random questions would have done."""
    from cnn_interp.middle_to_end.pictures import curve_figure

    section = found.section("How the error fell")
    section.figure(
        "error.png",
        curve_figure({about.order: steps, "random": chance}),
        "Error on images kept for that after each answer, beside that of questions in random order and what the graph "
        "itself expected.",
    )
    rows = [
        {"order": name, **asdict(step)}
        for name, some in ((about.order, steps), ("random", chance))
        for step in some
    ]
    section.table(
        "answers.csv", rows, {"order": Column("how images were chosen"), **_ANSWER_COLUMNS}, "Error after each answer.",
        shown=["order", "answers", "verdict", "shown", "templates", "error", "expected"], most=60,
    )  # fmt: skip
    found.number(
        "random_error", chance[-1].error, "random questions", format=".3f", note="error after as many answers"
    )
    found.warn(
        *no_better(
            f"{about.order} order", steps[-1].error, "random order", chance[-1].error, lower_is_better=True
        )
    )


def _said_rows(talk: Dialogue, images: Images) -> list[dict[str, Any]]:
    rows = []
    for entry in talk.entries:
        note = entry.annotation
        position = ("", "") if note is None or note.position is None else note.position
        rows.append(
            {
                "number": entry.number, "image": images.ids[entry.image],
                "verdict": "skipped" if entry.answer is None else entry.answer.verdict,
                "row": position[0], "column": position[1],
                "template": "" if note is None or note.template is None else note.template,
            }
        )  # fmt: skip
    return rows


def _image_rows(talk: Dialogue, images: Images, parses: Any) -> list[dict[str, Any]]:
    """Return a row for each image: where the part was found."""
    asked = {entry.image for entry in talk.entries}
    chances = dict(zip(talk.candidates.tolist(), talk.standing.chances.tolist(), strict=True))
    names = ("top", "left", "bottom", "right")
    return [
        {
            "image": images.ids[row], "asked": row in asked, "chance": chances.get(row, ""),
            "row": float(parses.centres[row, 0]), "column": float(parses.centres[row, 1]),
            **dict(zip(names, map(float, parses.boxes[row]), strict=True)),
            "score": float(parses.scores[row]), "spread": float(parses.spread[row]),
            "template": int(parses.templates[row]),
        }
        for row in range(len(parses))
    ]  # fmt: skip
