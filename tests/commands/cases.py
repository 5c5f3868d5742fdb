"""A case for each command: how it is called on small inputs, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

# A network of the user's own, so small that every command is done with it in seconds.
TINY = """
from cnn_interp.diagnosis.small_network import SmallNetwork
from cnn_interp.networks.network import Network

def network():
    names = ("dot", "stripe", "blank", "noise")
    return Network("tiny", SmallNetwork(3, 4, (4, 8, 8, 8)), size=32, resize=32, categories=names)
"""
OWN = ("--model", "tiny:network")
# A model of sites, so that none need be trained to read it.
SHIPPED = str(Path(__file__).parents[2] / "catalysis" / "data" / "model")


@dataclass(frozen=True)
class Case:
    """How a command is tried.

    Attributes
    ----------
    words : tuple of str
        What follows the command, for a run of seconds.
    runs : bool
        Whether it can be run here; False for what needs a network.
    has_folder : bool
        Whether it writes a result.
    seeded : bool
        Whether the same seed must give the same files, of the endings in `same`.
    refused : tuple of (str, str)
        Wrong options, and what the line says of each.
    file : str
        Options in which ``FILE`` is an input that may be damaged; its ending is `suffix`.
    """

    words: tuple[str, ...] = ()
    runs: bool = True
    has_folder: bool = True
    seeded: bool = False
    same: tuple[str, ...] = (".csv", ".npz")
    refused: tuple[tuple[str, str], ...] = ()
    file: str = ""
    suffix: str = ""


@dataclass(frozen=True)
class _OfNetwork(Case):
    words: tuple[str, ...] = OWN
    refused: tuple[tuple[str, str], ...] = field(
        default=(("--model nosuch", "nosuch"), ("--weights absent.pth --model resnet18", "absent.pth"))
    )


def prepare(folder: Path, words: str) -> None:
    """Lay small inputs for a command into a folder."""
    if words.startswith("catalyst"):
        from ase.io import write

        from catalysis.data import load_bundled
        from catalysis.structure.surfaces import build_slab
        from catalysis.structure.user_sites import write_sites

        sites = [site for site in load_bundled() if site.site_class in ("111_bridge", "100_bridge")]
        write_sites(folder / "sites.extxyz", sites[:: max(1, len(sites) // 70)])
        write(folder / "slab.extxyz", build_slab("111", "CuPt", seed=0, min_repeat_angstrom=4.0))
        return
    (folder / "tiny.py").write_text(TINY)
    draws = np.random.default_rng(0)
    for name in ("photos", "labelled/dark", "labelled/light"):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            low, high = {"photos": (0, 256), "labelled/dark": (0, 90)}.get(name, (140, 256))
            pixels = draws.integers(low, high, size=(40, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((48, 44)).save(folder / name / f"{number}.png")
    (folder / "answers.txt").write_text("drop 1\nmerge 0 2 as ear\n")
    factors = draws.integers(0, 4, size=(400, 2))
    codes = np.column_stack([factors + draws.normal(0, 0.1, factors.shape), draws.normal(size=(400, 1))])
    np.savez(folder / "codes.npz", codes=codes, factors=factors)


CASES: dict[str, Case] = {
    "bench": Case(
        ("fingerprints", "--quick"),
        runs=False,
        refused=(("nosuch", "nosuch"), ("--data hea-oh", "data"), ("--data hea-oh=absent", "absent")),
    ),
    "scores": Case(
        ("codes.npz", "--metrics", "mig,sap", "--bootstrap", "5"),
        seeded=True,
        refused=(
            ("codes.npz --metrics magic", "magic"),
            ("codes.npz --binning odd", "--binning"),
            ("codes.npz --codes-key absent", "absent"),
        ),
        file="FILE",
        suffix=".npz",
    ),
    "catalyst label": Case(
        ("slab.extxyz", "--calculator", "emt", "--kinds", "top", "--adsorbate", "O", "--absolute"),
        same=(".csv", ".extxyz"),
        refused=(("slab.extxyz --calculator dft", "dft"), ("slab.extxyz --kinds moon", "--kinds")),
        file="FILE --calculator emt",
        suffix=".extxyz",
    ),
    "catalyst fingerprint": Case(
        ("sites.extxyz",),
        refused=(("sites.extxyz --summaries magic", "--summaries"), ("bundled --facet 111", "--facet")),
        file="FILE",
        suffix=".extxyz",
    ),
    "catalyst train": Case(
        ("--data", "sites.extxyz", "--quick"),
        seeded=True,
        same=(".npz", "numbers.json"),
        refused=(
            ("--held-out 2", "--held-out"),
            ("--data absent.extxyz", "absent.extxyz"),
            ("--disentangle magic", "--disentangle"),
            ("--strength 3", "--strength"),
        ),
        file="--data FILE",
        suffix=".extxyz",
    ),
    "catalyst evaluate": Case(
        ("--train", "sites.extxyz", "--folds", "2", "--jobs", "1", "--quick"),
        seeded=True,
        refused=(
            ("--train sites.extxyz --geometry odd", "--geometry"),
            ("--train sites.extxyz --folds 1", "--folds"),
            ("--train sites.extxyz --split moon", "--split"),
            ("--train sites.extxyz --embeddings soap", "--embeddings"),
            ("--train sites.extxyz --teacher-only --quick", "--quick"),
        ),
        file="--train FILE",
        suffix=".extxyz",
    ),
    "catalyst design": Case(
        ("--n", "3", "--target-ev", "-0.2"),
        refused=(
            ("--window-ev -1", "--window-ev"),
            ("--facets 777", "777"),
            ("--elements Xx", "Xx"),
            ("--n 99999999", "--n"),
            ("--site-classes 777_moon", "777_moon"),
            ("--without Cu", "Cu"),
            ("--without Ir --elements Pt,Pd", "--without"),
            ("--prices absent.csv", "absent.csv"),
            ("--max-price 99999", "--max-price"),
            ("--max-price 3", "--max-price"),
            ("--verify 101", "--verify"),
            ("--calculator emt", "--calculator"),
            ("--verify 3 --calculator dft", "dft"),
        ),
        file="--data FILE",
        suffix=".extxyz",
    ),
    "catalyst sensitivity": Case(
        (
            "--data",
            "sites.extxyz",
            "--sites",
            "40",
            "--bars",
            "4",
            "--changes",
            "displacement,strain,adatom",
            "--amplitudes",
            "0.1",
        ),
        seeded=True,
        refused=(
            ("--changes melting", "--changes"),
            ("--amplitudes none", "--amplitudes"),
            ("--changes swap --strain 0.1", "--strain"),
            ("--sites 3", "--sites"),
            ("--calculator dft", "dft"),
            ("--device cpu", "--device"),
        ),
        file="--data FILE",
        suffix=".extxyz",
    ),
    "catalyst explain": Case(
        ("--data", "sites.extxyz", "--model", SHIPPED, "--per-class", "1"),
        seeded=True,
        refused=(
            ("--site nosuch", "--site"),
            ("--composition Xx", "--composition"),
            ("--model absent", "absent"),
            ("--quick", "--quick"),
        ),
        file="--data FILE",
        suffix=".extxyz",
    ),
    "catalyst latent": Case(
        ("--data", "sites.extxyz", "--model", SHIPPED),
        seeded=True,
        refused=(
            ("--model absent", "absent"),
            ("--quick", "--quick"),
            ("--data absent.extxyz", "absent.extxyz"),
        ),
        file="--data FILE",
        suffix=".extxyz",
    ),
    "catalyst optimize": Case(
        ("--elements", "Pt,Ru", "--facets", "111", "--sites", "128"),
        seeded=True,
        refused=(
            ("--window-ev 0", "--window-ev"),
            ("--activity magic", "--activity"),
            ("--temperature 500", "--temperature"),
            ("--elements Pt", "--elements"),
            ("--facets 777", "777"),
            ("--bounds Pt=60-10", "--bounds"),
            ("--elements Pt,Ru --bounds Ir=0-10", "Ir"),
            ("--elements Pt,Ru --bounds Pt=0-20,Ru=0-20", "--bounds"),
            ("--prices Pt", "--prices"),
            ("--sites 3", "--sites"),
        ),
        file="--data FILE",
        suffix=".extxyz",
    ),
    "catalyst screen": Case(
        ("--n", "400", "--facets", "111", "--composition", "Pt80Ru20", "--workers", "1"),
        seeded=True,
        same=(".csv", ".npz", ".parquet"),
        refused=(
            ("--n 0", "--n"),
            ("--n 99999999999999999999", "--n"),
            ("--composition Xx", "Xx"),
            ("--composition Ni", "Ni"),
            ("--facets 777", "777"),
            ("--least 2", "--least"),
            ("--keep some", "--keep"),
            ("--shards 2 --shard 2", "--shard"),
            ("--merge absent", "absent"),
            ("--merge ,", "--merge"),
            ("--frames sites.extxyz --n 7", "--n"),
            ("--frames sites.extxyz --embeddings chgnet", "--embeddings"),
            ("--embeddings chgnet", "--embeddings"),
            ("--workers -1", "--workers"),
        ),
        file="--frames FILE",
        suffix=".extxyz",
    ),
    "doctor": Case(has_folder=False),
    "weights list": Case(has_folder=False),
    "weights add": Case(runs=False, has_folder=False, refused=(("", "NAME"), ("nosuch", "nosuch"))),
    "cnn layers": _OfNetwork(has_folder=False),
    "cnn visualize": _OfNetwork(
        (
            "photos/0.png",
            *OWN,
            "--method",
            "saliency,occlusion,lime",
            "--set",
            "lime.samples=20",
            "--top",
            "2",
        ),
        seeded=True,
        refused=(
            ("--top 2 --target 1", "--top"),
            ("--method magic", "--method"),
            ("--set occlusion.window=x --method occlusion", "occlusion.window"),
            ("--unit 3", "--unit"),
            ("--layer x --method occlusion", "--layer"),
        ),
        file="FILE --model tiny:network",
        suffix=".png",
    ),
    "cnn dissect": _OfNetwork(
        (*OWN, "--images", "6"),
        seeded=True,
        refused=(("--data broden", "--data"), ("--share 2", "--share"), ("--data broden=absent", "absent")),
    ),
    "cnn instability": _OfNetwork(
        (*OWN, "--images", "12", "--top", "6"),
        seeded=True,
        refused=(("--data faces=here", "--data"), ("--top 0", "--top")),
    ),
    "cnn train capsnet": Case(
        ("--data", "labelled-images=labelled", "--epochs", "1", "--routings", "2"),
        seeded=True,
        refused=(
            ("--data moon", "--data"),
            ("--data mnist=absent", "absent"),
            ("--routings none", "--routings"),
            ("--size huge", "--size"),
            ("--example --epochs 3", "--epochs"),
            ("--network absent.safetensors", "absent.safetensors"),
            ("--test mnist=photos", "--test"),
        ),
        file="--network FILE",
        suffix=".safetensors",
    ),
    "cnn train infogan": Case(
        ("--images", "300", "--epochs", "1"),
        seeded=True,
        refused=(
            ("--data moon", "--data"),
            ("--data mnist=absent", "absent"),
            ("--size huge", "--size"),
            ("--example --categories 3", "--categories"),
            ("--example --network infogan.safetensors", "--network"),
        ),
        file="--network FILE",
        suffix=".safetensors",
    ),
    "cnn train icnn": _OfNetwork(
        (*OWN, "--images", "24", "--epochs", "2"),
        seeded=True,
        refused=(
            ("--data faces=here", "--data"),
            ("--loss magic", "--loss"),
            ("--beta 3", "--beta"),
            ("--window 2", "--window"),
            ("--layer a,b", "--layer"),
            ("--category moon", "moon"),
            ("--data folders=labelled --category grey", "grey"),
            ("--example --epochs 3", "--epochs"),
        ),
        file="--model FILE",
        suffix=".safetensors",
    ),
    "cnn disentangle tree": _OfNetwork(
        ("photos/0.png", *OWN, "--images", "30", "--leaves", "8"),
        seeded=True,
        refused=(
            ("--data faces=here", "--data"),
            ("--data folders=absent", "absent"),
            ("--data folders=labelled --category grey", "grey"),
            ("--category unicorn --model tiny:network", "unicorn"),
            ("--layer a,b", "--layer"),
            ("--leaves 1", "--leaves"),
            ("--convert", "--convert"),
            ("--target nothing --model tiny:network", "nothing"),
        ),
        file="FILE --model tiny:network",
        suffix=".png",
    ),
    "cnn teach": _OfNetwork(
        (*OWN, "--images", "24", "--answers", "4"),
        seeded=True,
        refused=(
            ("--model nosuch", "nosuch"),
            ("--data nowhere", "--data"),
            ("--data photos --simulate", "--simulate"),
            ("--ask --error-rate 0.1", "--error-rate"),
            ("--serve --simulate", "--simulate"),
            ("--serve --answers 3", "--answers"),
            ("--port 8000", "--port"),
            ("--error-rate 2", "--error-rate"),
            ("--order best", "--order"),
            ("--part wing", "--part"),
            ("--resume photos", "journal.jsonl"),
        ),
    ),
    "cnn train rcnn": _OfNetwork(
        (*OWN, "--images", "24", "--epochs", "1", "--grid", "3", "--parts", "2"),
        seeded=True,
        refused=(
            ("--data faces=here", "--data"),
            ("--data cub=absent", "--data"),
            ("--layer nosuch --model tiny:network", "nosuch"),
            ("--grid 40", "--grid"),
            ("--example --epochs 3", "--epochs"),
            ("--example --detector codes.npz", "--detector"),
            ("--detector codes.npz", "codes.npz"),
        ),
    ),
    "cnn disentangle parts": _OfNetwork(
        (*OWN, "--images", "14", "--annotations", "1,2", "--draws", "2"),
        seeded=True,
        refused=(
            ("--data faces=here", "--data"),
            ("--annotations none", "--annotations"),
            ("--category fish --part wheel", "--part"),
            ("--category mouse", "mouse"),
        ),
    ),
    "cnn disentangle graph": _OfNetwork(
        (*OWN, "--images", "16", "--rounds", "2", "--transfer", "photos"),
        seeded=True,
        refused=(
            ("--data faces=here", "--data"),
            ("--category moon", "moon"),
            ("--data images=photos --category cat", "--category"),
            ("--graph labelled --nodes 3", "--nodes"),
            ("--graph photos --model tiny:network", "photos"),
            ("--transfer absent", "absent"),
            ("--layer nosuch --model tiny:network", "nosuch"),
        ),
    ),
    "cnn disentangle concepts": _OfNetwork(
        (
            *OWN,
            "--data",
            "images=photos",
            "--concepts",
            "3",
            "--codes",
            "6",
            "--active",
            "2",
            "--epochs",
            "2",
        ),
        seeded=True,
        refused=(
            ("--method svd", "--method"),
            ("--method nmf --codes 9", "--codes"),
            ("--method sae --concepts 9", "--concepts"),
            ("--importance guess", "--importance"),
            ("--target nosuch --model tiny:network", "nosuch"),
            ("--concepts 99 --model tiny:network", "--concepts"),
        ),
    ),
    "cnn edit": _OfNetwork(
        (*OWN, "--images", "labelled", "--answers", "answers.txt", "--count", "4", "--refit"),
        seeded=True,
        same=(".csv", ".safetensors"),
        refused=(
            ("--patterns spots", "--patterns"),
            ("--layer a,b", "--layer"),
            ("--patterns filters --count 3", "--count"),
            ("--patterns nodes --method pca", "--method"),
            ("--answers answers.txt", "--answers"),
            ("--images absent", "absent"),
            ("--images labelled --cue mark", "--cue"),
            ("--images labelled --scenes 20", "--scenes"),
            ("--images labelled --answers absent.txt", "absent.txt"),
            ("--images labelled --undo", "--undo"),
            ("--serve", "--serve"),
            ("--images labelled --serve --answers answers.txt", "--answers"),
            ("--images labelled --port 8000", "--port"),
            ("--images labelled --edit photos", "photos"),
            ("--images labelled --edit photos --count 3", "--count"),
        ),
        file="--images labelled --model tiny:network --answers FILE",
        suffix=".txt",
    ),
    "cnn diagnose adversarial": _OfNetwork(
        ("photos/0.png", *OWN, "--method", "fgsm,pgd", "--epsilon", "8"),
        seeded=True,
        refused=(("--method magic", "--method"), ("--epsilon 0", "--epsilon")),
        file="FILE --model tiny:network",
        suffix=".png",
    ),
    "cnn diagnose one-pixel": _OfNetwork(
        ("photos/0.png", *OWN, "--population", "6", "--generations", "2"),
        seeded=True,
        refused=(("--data moon", "--data"), ("--population 2", "--population")),
        file="--data cifar10=FILE",
        suffix=".npz",
    ),
    "cnn diagnose directions": _OfNetwork(
        (*OWN, "--directions", "16", "--top", "4"), seeded=True, refused=(("--top 1", "--top"),)
    ),
    "cnn diagnose transferability": Case(
        ("--train-images", "6", "--epochs", "1", "--repeats", "1", "--widths", "4,4"),
        seeded=True,
        refused=(("--widths eight", "--widths"), ("--data moon", "--data")),
        file="--data cifar10=FILE",
        suffix=".npz",
    ),
    "cnn diagnose probe": _OfNetwork(
        (*OWN, "--images", "60", "--side", "32"), seeded=True, file="--data cifar10=FILE", suffix=".npz"
    ),
    "cnn diagnose features": _OfNetwork((*OWN, "--side", "32"), seeded=True),
    "cnn diagnose bias": Case(
        ("--epochs", "1"),
        seeded=True,
        refused=(("photos --categories a --model tiny:network", "--categories"),),
        file="--relations FILE",
        suffix=".csv",
    ),
    "cnn diagnose influence": _OfNetwork(
        ("labelled", *OWN, "--leave-out", "2", "--questions", "2"),
        seeded=True,
        refused=(("--flip 0.7", "--flip"), ("--l2 0", "--l2"), ("--test absent", "--test")),
        file="FILE",
    ),
    "cnn diagnose unknown-unknowns": Case(
        ("--budget", "20"),
        seeded=True,
        refused=(("--threshold 2", "--threshold"), ("--support 0", "--support")),
        file="--table FILE",
        suffix=".csv",
    ),
    "cnn diagnose rules": Case(
        ("--labels-per-class", "2"),
        seeded=True,
        refused=(("--strength 0", "--strength"), ("--images here", "--attributes")),
        file="--images labelled --model tiny:network --attributes FILE --rule wheels->car",
        suffix=".csv",
    ),
    "cnn diagnose vqa": Case(
        ("--scenes", "16", "--epochs", "1", "--questions", "16"),
        seeded=True,
        refused=(("--question what", "--image"), ("--image absent.png", "--question")),
        file="--answerer FILE",
        suffix=".safetensors",
    ),
}
