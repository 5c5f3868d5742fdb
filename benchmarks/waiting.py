"""How long a person waits for a word: every command in a terminal, its first word and its longest silence.

Run as `interpretkit bench waiting`.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interpretkit.bench.evidence import Row
from interpretkit.cli import every_command
from interpretkit.runs.progress import track

BAR = "the bars set for this benchmark: 1 s and 5 s"
# What cannot be called without arguments gets these; CODES and SLAB are made beside.
ARGUMENTS = {
    "scores": "CODES",
    "catalyst label": "SLAB --calculator emt --adsorbate O --absolute",
    "catalyst fingerprint": "bundled",
    "catalyst evaluate": "--train bundled --folds 3 --quick",
    "catalyst train": "--quick",
}
# The bench would call itself, and weights are fetched from elsewhere.
LEFT_OUT = ("bench", "weights add")
QUICK = ("doctor", "weights list", "scores", "cnn layers", "catalyst label", "cnn diagnose probe")
# What a bar moves by itself, while nothing is done: its turning sign and its clock.
_CLOCK = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\d+:\d\d:\d\d|-:--:--|[\u2800-\u28ff]")


@dataclass(frozen=True)
class Waited:
    """How a command kept its caller waiting, in seconds.

    Attributes
    ----------
    command : str
        Its words.
    first : float
        Until its first word.
    silence : float
        The longest time without any output.
    standstill : float
        The longest time in which nothing but a clock moved.
    after : str
        What was said last before that.
    whole : float
        Until its end.
    """

    command: str
    first: float
    silence: float
    standstill: float
    after: str
    whole: float


def wait_for(words: list[str], folder: Path) -> Waited:
    """Call a command in a terminal of its own, and note when it says something.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    ours, its = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "interpretkit", *words],
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        cwd=folder,
        env=environment,
    )
    os.close(its)
    said, news, seen, everything = [0.0], [(0.0, "")], set(), ""
    while True:
        ready, _, _ = select.select([ours], [], [], 1)
        if not ready:
            continue
        try:
            text = os.read(ours, 1 << 16).decode("utf-8", "replace")
        except OSError:  # how Linux tells that the other end was closed
            break
        if not text:
            break
        now = time.monotonic() - began
        said.append(now)
        everything = (everything + text)[-2000:]
        for line in re.split(r"[\r\n]+", _CLOCK.sub("", text)):
            if line.strip() and line.strip() not in seen:
                seen.add(line.strip())
                news.append((now, line.strip()))
    code, whole = process.wait(), time.monotonic() - began
    os.close(ours)
    if code:
        raise RuntimeError(f"{shlex.join(words)} ended with {code}: {everything[-500:]}")
    gaps = np.diff([*said, whole])
    stands = np.diff([*(moment for moment, _ in news), whole])
    first = said[1] if len(said) > 1 else whole
    after = news[int(stands.argmax())][1]
    return Waited(" ".join(words), first, float(gaps.max()), float(stands.max()), after, whole)


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return the rows of evidence.

    Parameters
    ----------
    quick : bool
        A few short commands instead of all.
    data : mapping of str to path, optional
        None is needed.
    seed : int
        Of the inputs.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        given = _inputs(folder, seed)
        chosen = [
            words for words, _ in every_command() if words in QUICK or (not quick and words not in LEFT_OUT)
        ]
        waited = []
        for words in track(chosen, "Waiting for commands"):
            more = [given.get(word, word) for word in ARGUMENTS.get(words, "").split()]
            waited.append(wait_for([*words.split(), *more], folder))
    return [*rows_of(waited, quick)]


def rows_of(waited: list[Waited], quick: bool) -> Iterator[Row]:
    """Give the worst of each kind of waiting over the commands, and the commands that made one wait."""
    commands_said = f"{len(waited)} {'short ' if quick else ''}commands with their defaults, on a terminal"
    for name, kind, bar in (
        ("first word, slowest command", "first", 1.0),
        ("longest silence of any command", "silence", 5.0),
        ("longest time in which nothing but a clock moved", "standstill", 5.0),
    ):
        worst = max(waited, key=lambda one: getattr(one, kind))
        beyond = sum(getattr(one, kind) > bar for one in waited)
        after = f", after “{worst.after[:60]}”" if kind == "standstill" else ""
        yield Row(
            system="command line",
            data=commands_said,
            name=name,
            value=getattr(worst, kind),
            unit="s",
            reference=bar,
            source=BAR,
            notes=f"`{worst.command}`{after}; {beyond} of {len(waited)} commands are beyond the bar",
        )


def _inputs(folder: Path, seed: int) -> dict[str, str]:
    """Make what commands need that cannot do without; return the paths by the words that stand for them."""
    from ase.io import write

    from catalysis.structure.surfaces import build_slab

    draws = np.random.default_rng(seed)
    factors = draws.integers(0, 4, size=(1000, 2))
    codes = np.column_stack([factors + draws.normal(0, 0.1, factors.shape), draws.normal(size=(1000, 1))])
    np.savez(folder / "codes.npz", codes=codes, factors=factors)
    write(folder / "slab.extxyz", build_slab("111", "CuPt", seed=seed, min_repeat_angstrom=4.0))
    return {"CODES": "codes.npz", "SLAB": "slab.extxyz"}
