"""Help and refusals come at once: nothing heavy is imported for them, whatever the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from interpretkit.commandline.loading import HEAVY

# Walks the whole tree of commands and asks each for its help, in one process.
HELP = """
import contextlib, io, sys
from typer.main import get_command
from interpretkit.cli import app
def walk(command, words):
    with contextlib.redirect_stdout(io.StringIO()) as page, contextlib.suppress(SystemExit):
        get_command(app).main([*words, "--help"], prog_name="interpretkit")
    assert "Usage" in page.getvalue(), words
    print(" ".join(words))
    for name, found in getattr(command, "commands", {}).items():
        found = found.load() if hasattr(found, "load") else found
        walk(found, [*words, name])
walk(get_command(app), [])
print(*sorted(set(sys.modules) & set(sys.argv[1:])), sep=",")
"""
# Runs one wrong line after another, and says after each what has been imported by then.
REFUSALS = """
import sys
from interpretkit.cli import main
for line in sys.stdin.read().splitlines():
    try:
        main(line.split("\\t"))
    except SystemExit as end:
        print(end.code, *sorted(set(sys.modules) & set(sys.argv[1:])), sep=",", flush=True)
"""
WRONG = [
    "catalyst design --facets 777",
    "catalyst design --facets=",
    "catalyst design --elements=",
    "catalyst design --elements Xx",
    "catalyst design --elements ,",
    "catalyst design --energy-key nosuch --data bundled",
    "catalyst design --facet 111",
    "catalyst design --quick",
    "catalyst design --window-ev -1",
    "catalyst design --window-ev nan",
    "catalyst design --target-ev inf",
    "catalyst design --n 99999999",
    "catalyst design --n 0",
    "catalyst design --model nowhere",
    "catalyst design --model . --data here.npz",
    "catalyst design --data nowhere.extxyz",
    "catalyst design --out here.npz",
    "catalyst design --seed -1",
    "catalyst design --device tpu",
    "catalyst train --held-out 1.5",
    "catalyst train --data nowhere",
    "catalyst train --lost nowhere",
    "catalyst train --kind 111",
    "catalyst train --kind top",
    "catalyst fingerprint bundled --summaries all",
    "catalyst fingerprint bundled --kind top",
    "catalyst fingerprint nowhere",
    "catalyst label nowhere",
    "catalyst label here.npz --calculator dft",
    "catalyst label here.npz --kinds saddle",
    "catalyst label here.npz --kinds=",
    "catalyst evaluate --train nowhere",
    "catalyst evaluate --train bundled --folds 1",
    "catalyst evaluate --train bundled --group-by moon",
    "catalyst evaluate --train bundled --test bundled --folds 3",
    "catalyst evaluate --train bundled --geometry odd",
    "catalyst evaluate --train bundled --jobs -1",
    "catalyst evaluate --train bundled --split moon",
    "catalyst evaluate --train bundled --split class --folds 3",
    "catalyst evaluate --train bundled --split facet --test bundled",
    "catalyst evaluate --train bundled --embeddings soap",
    "catalyst evaluate --train bundled --teacher-only --quick",
    "cnn visualize --method magic",
    "cnn visualize --set occlusion.window=0",
    "cnn visualize --weights damaged.pth",
    "cnn visualize nowhere.png",
    "cnn visualize here.npz",
    "cnn layers --model resnet1800",
    "cnn dissect --share 2",
    "cnn dissect --data broden",
    "cnn dissect --data broden=nowhere",
    "cnn instability --data cub=nowhere",
    "cnn instability --top 1",
    "cnn diagnose adversarial --epsilon 0",
    "cnn diagnose adversarial --method magic",
    "cnn diagnose adversarial nowhere.png",
    "cnn diagnose bias here.npz --categories a,b,c",
    "cnn diagnose bias --categories a,b,c",
    "cnn diagnose bias --relations nowhere.csv",
    "cnn diagnose directions nowhere",
    "cnn diagnose features --side 3",
    "cnn diagnose influence --flip 0.7",
    "cnn diagnose influence --l2 -1",
    "cnn diagnose influence nowhere",
    "cnn diagnose one-pixel --data mnist",
    "cnn diagnose one-pixel --data cifar10=here.npz",
    "cnn diagnose probe --data cifar10=nowhere",
    "cnn diagnose rules --strength -1",
    "cnn diagnose rules --images .",
    "cnn diagnose transferability --widths 8,x",
    "cnn diagnose unknown-unknowns --threshold 2",
    "cnn diagnose unknown-unknowns --table nowhere.csv",
    "cnn diagnose vqa --image nowhere.png",
    "cnn diagnose vqa --answerer nowhere.safetensors",
    "scores nowhere.npz",
    "scores here.npz --metrics magic",
    "scores here.npz --metrics=",
    "scores here.npz --metrics mig --reference",
    "scores here.npz --codes-key z",
    "scores here.npz --discrete 7",
    "scores here.npz --models-key codes",
    "scores damaged.pth",
    "bench nosuch",
    "bench --data nowhere=nowhere",
]
# Reading pictures and arrays takes these, which are there in a fraction of a second.
# ase knows the elements and is there in a third of a second.
TORCHES = HEAVY - {"scipy", "h5py", "joblib", "ase"}


def test_the_help_of_every_command_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP, *HEAVY], capture_output=True, text=True, check=True)
    *pages, imported = done.stdout.split("\n")[:-1]
    assert len(pages) > 25
    assert imported == ""


def processor_seconds() -> float:
    """Return what the processes started here have taken so far, whatever else the machine was busy with."""
    spent = os.times()
    return spent.children_user + spent.children_system


def test_help_comes_within_a_second() -> None:
    started = processor_seconds()
    for command in (["catalyst", "design"], ["cnn", "dissect"], ["cnn", "visualize"], ["scores"]):
        subprocess.run(
            [sys.executable, "-m", "interpretkit.cli", *command, "--help"], capture_output=True, check=True
        )
    assert (processor_seconds() - started) / 4 < 1


def test_wrong_options_are_refused_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "here.npz", codes=rng.random((50, 3)), factors=rng.random((50, 2)))
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 and nothing more")
    started = processor_seconds()
    done = subprocess.run(
        [sys.executable, "-c", REFUSALS, *TORCHES],
        input="\n".join(line.replace(" ", "\t") for line in WRONG),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (processor_seconds() - started) / len(WRONG) < 0.5
    answers = done.stdout.splitlines()
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("loading ")]
    assert len(answers) == len(WRONG), done.stderr
    for line, answer in zip(WRONG, answers, strict=True):
        assert answer == "2", f"{line}: {answer}\n{done.stderr}"
    # One line each, and no word of loading among them.
    assert len(complaints) == len(WRONG)
    assert all(complaint.startswith("Error: ") for complaint in complaints)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.pth", "here.npz"]


@pytest.mark.parametrize(
    ("quiet", "said"), [([], ["loading torch …"]), (["--quiet"], []), (["--json"], ["loading torch …"])]
)
def test_a_word_is_said_before_what_is_heavy(quiet: list[str], said: list[str]) -> None:
    code = (
        "import sys, time\n"
        "from interpretkit import cli\n"
        "from interpretkit.commandline import Finding, command\n"
        "from interpretkit.commandline.command import as_command\n"
        "import importlib.abc, importlib.machinery\n"
        "class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        return importlib.machinery.ModuleSpec(name, self) if name in ('torch', 'scipy') else None\n"
        "    def exec_module(self, module):\n"
        "        print('importing', module.__name__, file=sys.stderr)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "@command(example='interpretkit slow')\n"
        "def slow() -> Finding:\n"
        "    'Import something.'\n"
        "    import torch, scipy\n"
        "    return Finding('Slow')\n"
        "cli.Root.deferred = lambda self: [as_command(slow, 'slow')]\n"
        "cli.main(['slow', *sys.argv[1:]])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *quiet], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [*said, "importing torch", "importing scipy"]
