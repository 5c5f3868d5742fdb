"""Every line and snippet of the README and the documentation runs, in order, and gives what is said beside it."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from typer.main import get_command

# Its neighbours are no package, so they are found by their names.
sys.path.insert(0, str(Path(__file__).parent))
from blocks import PAGES, ROOT, Block, blocks_of, inline_commands, run_python, stated_result
from inputs import GIVEN, INPUTS, SMALLER_COMMANDS, SMALLER_DEFAULTS, SMALLER_SNIPPETS

from cnn_interp.commands.cnn.visualize import DEFAULT_METHODS
from cnn_interp.networks.checks import is_edit
from interpretkit.bench.quotes import QUOTES, names_in, read_quotes, refresh
from interpretkit.bench.results import read_results
from interpretkit.cli import app, main
from interpretkit.commandline.front_ends import ENTRY_POINTS

RESULTS_STATED = {
    "README.md": 0,
    "docs/attribution.md": 6,
    "docs/capsules.md": 3,
    "docs/datasets.md": 4,
    "docs/diagnosis.md": 1,
    "docs/diagnosis-data.md": 3,
    "docs/disentanglement.md": 3,
    "docs/disentangling.md": 5,
    "docs/editing.md": 2,
    "docs/infogan.md": 3,
    "docs/interpretable-networks.md": 2,
    "docs/metrics.md": 1,
    "docs/part-graphs.md": 3,
    "docs/path-homology.md": 3,
    "docs/rcnn.md": 3,
    "docs/site-studies.md": 5,
    "docs/studies.md": 1,
    "docs/tutorial-own-alloy.md": 1,
    "docs/tutorial-own-dft.md": 2,
}
"""So many results at least stand beside the snippets of a page, and are compared."""

TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
BLOCKS = {page: blocks_of(page, text) for page, text in TEXTS.items()}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Go into an empty folder, with long work cut short and random weights for those that are not at hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module, function, parameter, value in SMALLER_DEFAULTS:
        called = getattr(importlib.import_module(module), function)
        assert parameter in called.__kwdefaults__
        monkeypatch.setitem(called.__kwdefaults__, parameter, value)
    from cnn_interp.networks import loading as models

    build = models._build
    monkeypatch.setattr(
        models, "_build", lambda name, weights: build(name, weights if pretrained(name) else "random")
    )
    yield tmp_path
    import matplotlib.pyplot as plt

    plt.close("all")


def pretrained(name: str) -> bool:
    """Tell whether a network's weights are at hand; a user's own network brings its weights."""
    if ":" in name or is_edit(name) or name.endswith(".safetensors"):
        return True
    from cnn_interp.networks.weights import checkpoint_folder, torchvision_weights

    network, _, variant = name.partition("@")
    file = PurePosixPath(torchvision_weights(network, variant or None).url).name
    return (checkpoint_folder() / file).is_file()


def make_inputs(page: str, folder: Path) -> None:
    text = "\n".join(block.text for block in BLOCKS[page])
    for block in BLOCKS[page]:
        if block.language == "shell" and not block.left_to:
            text += "\n".join(" ".join(shortened(words)) for _, words in block.commands())
    for name, make in INPUTS.items():
        if name in text:
            make(folder / name)


def shortened(words: list[str]) -> list[str]:
    """Return a command with the options that make it short."""
    line = " ".join(words)
    fitting = [start for start in SMALLER_COMMANDS if f"{line} ".startswith(f"{start} ")]
    added = SMALLER_COMMANDS[max(fitting, key=len)].split() if fitting else []
    if words[1:3] == ["cnn", "visualize"]:
        # Only a method that is asked for takes a setting.
        pairs = zip(added[::2], added[1::2], strict=True)
        asked = words[words.index("--method") + 1] if "--method" in words else DEFAULT_METHODS
        given = [word.partition("=")[0] for word in words]
        added = [
            word
            for option, value in pairs
            if value.partition(".")[0] in asked.split(",") and value.partition("=")[0] not in given
            for word in (option, value)
        ]
    return [*words, *added]


def run_command(block: Block, line: int, words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert words[0] == "interpretkit", f"{block.page}:{line}: {words[0]!r} is no command of the project"
    with pytest.raises(SystemExit) as ended:
        main(shortened(words)[1:])
    shown = capfd.readouterr()
    assert not ended.value.code, f"{block.page}:{line}: {' '.join(words)}\n{shown.err}"


def parse(words: list[str]) -> None:
    """Let the parser read a command without running it; a group may be named alone."""
    command: Any = get_command(app)
    args = words[1:]
    name = words[0]
    while hasattr(command, "resolve_command"):
        if not args:
            return
        if args[0].startswith("-"):
            assert args[0] in {option for parameter in command.params for option in parameter.opts}
            return
        context = command.context_class(command, info_name=name)
        name, command, args = command.resolve_command(context, args)
    command.make_context(name, list(args))


def without_folder(words: list[str]) -> tuple[str, ...]:
    """Return a command without its option for the folder of its results."""
    kept = list(words)
    if "--out" in kept:
        place = kept.index("--out")
        del kept[place : place + 2]
    return tuple(kept)


GUIDED = frozenset(
    without_folder(words)
    for page in PAGES
    if page != "README.md"
    for block in BLOCKS[page]
    if block.language == "shell" and not block.left_to
    for _, words in block.commands()
)
"""What the guides run: where the README's tour names it, it need not run once more."""


def run_by_a_guide(words: list[str], tour: list[list[str]]) -> bool:
    """Tell whether a guide runs a command of the README's tour, and all on the tour that read its results."""
    folder = words[words.index("--out") + 1] if "--out" in words else None
    readers = [
        other
        for other in tour
        if folder and other != words and any(f"{word}/".startswith(f"{folder}/") for word in other)
    ]
    return without_folder(words) in GUIDED and all(run_by_a_guide(other, tour) for other in readers)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCKS[page]])
def test_everything_on_a_page_runs_in_order(
    page: str, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_inputs(page, workspace)
    namespace: dict[str, Any] = {"__name__": "documentation"}
    exec(compile(GIVEN.get(page, ""), f"<given for {page}>", "exec"), namespace)
    smaller = dict(SMALLER_SNIPPETS.get(page, {}))
    if not pretrained("mobilenet_v2"):
        # What a network says is known of the trained one alone.
        smaller |= {"# 'Egyptian cat'": "#"}
    compared = 0
    shown = [b for b in BLOCKS[page] if b.language == "shell" and not b.left_to]
    tour = [words for block in shown for _, words in block.commands()]
    for block in BLOCKS[page]:
        if block.left_to:
            continue
        if block.language == "python":
            compared += run_python(block, namespace, smaller)
        else:
            for line, words in block.commands():
                if page != "README.md" or not run_by_a_guide(words, tour):
                    run_command(block, line, words, capfd)
    assert compared >= RESULTS_STATED.get(page, 0)
    # Whatever a page makes, it makes where it is told to.
    assert Path.cwd() == workspace
    assert not [name for name in os.listdir(workspace) if name.startswith(".")]


def described_commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield the path and the examples of every command below a group."""
    if not hasattr(command, "resolve_command"):
        yield " ".join(path), command.epilog or ""
        return
    context = command.context_class(command, info_name="interpretkit")
    for name in command.list_commands(context):
        _, found, _ = command.resolve_command(context, [name])
        yield from described_commands(found, (*path, name))


def test_the_parser_knows_every_line_whether_or_not_it_runs() -> None:
    examined = 0
    for page, text in TEXTS.items():
        lines = [
            words
            for block in BLOCKS[page]
            if block.language == "shell" and not block.left_to
            for _, words in block.commands()
        ]
        for words in [*lines, *inline_commands(text)]:
            try:
                parse(words)
            except Exception as error:
                error.add_note(f"{page}: {' '.join(words)}")
                raise
            examined += 1
    assert examined > 60


def test_the_parser_knows_the_examples_of_every_help() -> None:
    examined = 0
    for path, epilog in described_commands(get_command(app)):
        lines = [line.strip() for line in epilog.splitlines() if line.strip().startswith("interpretkit")]
        assert lines, f"{path} has no example"
        for line in lines:
            words = shlex.split(line.replace("\\[", "["))
            assert line.startswith(f"interpretkit {path}"), f"{path}: {line}"
            parse(words)
            examined += 1
    assert examined > 40


def command_path(words: list[str]) -> tuple[str, ...]:
    """Return the words that name a command, without what is given to it."""
    command: Any = get_command(app)
    path = words[:1]
    for word in words[1:]:
        if not hasattr(command, "resolve_command"):
            break
        _, command, _ = command.resolve_command(command.context_class(command, info_name=path[-1]), [word])
        path.append(word)
    return tuple(path)


def test_what_is_not_run_here_is_little_and_says_why() -> None:
    left = [block for blocks in BLOCKS.values() for block in blocks if block.left_to]
    runner = (ROOT / ".ci" / "run").read_text()
    untested = []
    for block in left:
        kind, _, reason = block.left_to.partition(": ")
        assert reason
        elsewhere = re.fullmatch(r"(\S+\.md) runs it", reason)
        if kind == "command":
            assert f"readme_command {reason}" in runner
        elif elsewhere:
            shown = [b for b in BLOCKS[elsewhere[1]] if b.language == "shell" and not b.left_to]
            run = {command_path(words) for b in shown for _, words in b.commands()}
            assert {command_path(words) for _, words in block.commands()} <= run, block
        else:
            untested.append(f"{block.page}: {reason}")
    # What changes the machine: environments, installs, downloads.
    assert {line.partition(": ")[0] for line in untested} <= {"docs/install.md", "docs/teaching.md"}
    assert len(untested) <= 6


def test_shortened_lines_stand_somewhere() -> None:
    lines = [" ".join(words) for blocks in BLOCKS.values() for b in blocks if b.language == "shell"
             for _, words in b.commands()]  # fmt: skip
    for start in SMALLER_COMMANDS:
        assert any(line.startswith(start) for line in lines), start
    for page, sizes in SMALLER_SNIPPETS.items():
        for large in sizes:
            assert any(large in block.text for block in BLOCKS[page]), f"{page}: {large}"
    everything = "\n".join(block.text for blocks in BLOCKS.values() for block in blocks)
    assert [name for name in INPUTS if name not in everything] == []


def test_numbers_quoted_are_those_of_the_results() -> None:
    quotes, results = read_quotes(ROOT / "docs" / QUOTES), read_results(ROOT / "docs")
    used = []
    for page, text in TEXTS.items():
        fresh = refresh(text, quotes, results)
        assert text == fresh, (
            f"{page} quotes other numbers than results.json: python -m interpretkit.bench.quotes docs"
        )
        used += names_in(text)
    assert set(used) == set(quotes)
    assert len(used) > 80


def test_names_in_prose_exist() -> None:
    examined = 0
    for page, text in TEXTS.items():
        for name in re.findall(r"`((?:interpretkit|catalysis|cnn_interp)(?:\.\w+)+)", text):
            assert name == ENTRY_POINTS or resolves(name), f"{page}: {name}"
            examined += 1
    assert examined > 5


def resolves(name: str) -> bool:
    """Tell whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_files_named_in_prose_exist() -> None:
    examined = 0
    for page, text in TEXTS.items():
        for name in re.findall(r"`((?:interpretkit|catalysis|cnn_interp|benchmarks|docs)/[\w./-]+)`", text):
            assert (ROOT / name).exists(), f"{page}: {name}"
            examined += 1
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"
            examined += 1
    assert examined > 20


@pytest.mark.parametrize(
    ("comment", "stated"),
    [
        ("'Egyptian cat'; found.values says why", ("value", "Egyptian cat")),
        ("(n, 1, height, width)", ("shape", ["n", "1", "height", "width"])),
        ("(n,), the class explained", ("shape", ["n"])),
        ("3: three of them", ("value", 3)),
        ("once for a model", None),
        ("zebra, espresso", None),
        ("20 000 steps", None),
    ],
)
def test_what_counts_as_a_stated_result(comment: str, stated: tuple[str, Any] | None) -> None:
    assert stated_result(comment) == stated


def test_a_wrong_result_is_seen() -> None:
    for text in ("x = 3\nx  # 4", "y = [[1, 2]]\ny  # (1, 3)", "z = 'a'  # 'b'"):
        with pytest.raises(AssertionError):
            run_python(Block("page", 1, "python", text, ""), {}, {})
    assert (
        run_python(Block("page", 1, "python", "w = [[1, 2]]  # (1, n)\nw[0]  # array([1, 2])", ""), {}, {})
        == 2
    )
