"""Small files and arrays by the names that the documentation gives them, and how long work is cut short."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

# What the package brings along, for pages that show it by itself.
SHIPPED = Path(__file__).parents[2] / "catalysis" / "data" / "model"
_LABELS = ("car", "cat", "dog", "truck")


def _picture(path: Path, seed: int, height: int = 64, width: int = 64, grey: float = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(grey, 30, (height // 8, width // 8, 3))
    pixels = np.clip(noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(path)


def _photograph(path: Path) -> None:
    from cnn_interp.images.files import photograph

    photograph().save(path)


def _photographs(path: Path) -> None:
    from skimage import data

    path.mkdir()
    for name in ("chelsea", "coffee", "rocket"):
        Image.fromarray(getattr(data, name)()).resize((240, 240)).save(path / f"{name}.jpg")


def _labelled_images(path: Path) -> None:
    for number, label in enumerate(_LABELS):
        for image in range(5):
            _picture(path / label / f"{image}.png", 10 * number + image, grey=60 + 50 * number)


def _attributes(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "wheels"])
        for label in _LABELS:
            writer.writerows([f"{label}/{image}.png", int(label in ("car", "truck"))] for image in range(5))


def _answers(path: Path) -> None:
    path.write_text("drop 3  # a stamp\nmerge 0 1 as ear\n")


def _slabs(path: Path) -> None:
    from ase.io import write

    from catalysis.structure.surfaces import build_slab

    path.mkdir()
    # One of them is held out, and at least 20 sites are learned from.
    for seed in range(3):
        slab = build_slab("111", "CuPdPt", seed=seed, min_repeat_angstrom=4.0)
        # As structures come from elsewhere: nothing in the file tells the facet.
        slab.info.clear()
        write(path / f"{seed}.cif", slab)


def _sites(first: int, most: int = 60) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        from catalysis.data import load_bundled
        from catalysis.structure.user_sites import write_sites

        sites = [site for site in load_bundled() if site.site_class in ("111_bridge", "100_bridge")]
        slabs = sorted({site.slab_id for site in sites})[first::2]
        write_sites(path, [site for site in sites if site.slab_id in slabs][:most])

    return make


def _oxygen(path: Path) -> None:
    from ase.io import write

    from catalysis.structure.finding import find_sites
    from catalysis.structure.surfaces import build_slab

    effect = {"Ag": 1.2, "Ir": -0.9, "Pd": 0.3, "Pt": 0.0, "Ru": -1.2}
    frames, rng = [], np.random.default_rng(0)
    for seed in range(8):
        slab = build_slab("111", "".join(f"{e}20" for e in effect), seed=seed, min_repeat_angstrom=7.0)
        for site in find_sites(slab, kinds=("hollow",), adsorbate="O"):
            if "fcc" not in site.site_class:
                continue
            frame = slab.copy()
            frame.extend(site.to_atoms()[len(site) :])
            energy = sum(effect[symbol] for symbol in site.symbols[:3]) / 3 + rng.normal(0, 0.02)
            frame.info = {"slab_id": f"slab-{seed}", "facet": "111", "adsorption_energy_eV": float(energy)}
            frames.append(frame)
    write(path, frames)


def _codes(path: Path) -> None:
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 4, (300, 3))
    np.savez(path, codes=factors + rng.normal(0, 0.1, factors.shape), factors=factors)


def _predictions(path: Path) -> None:
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "predicted", "confidence", "label", "weather", "time"])
        for number in range(200):
            weather, time = rng.choice(["sun", "rain"]), rng.choice(["day", "night"])
            truth = "bus" if weather == "rain" and time == "night" else "car"
            writer.writerow([f"{number}.jpg", "car", rng.uniform(0.6, 1), truth, weather, time])


def _scene(path: Path) -> None:
    from cnn_interp.images.scenes import random_scene

    Image.fromarray(random_scene(0).image).save(path)


def _broden(path: Path) -> None:
    tables = {
        "category.csv": ["name,first,last,count,frequency", "object,1,2,2,4"],
        "label.csv": [
            "number,name,category,frequency,coverage,syns",
            "0,-,,0,0,",
            "1,cat,object(4),4,0.3,",
            "2,lamp,object(4),4,0.1,",
        ],
        "c_object.csv": ["code,number,name,frequency,coverage", "0,0,-,0,0", "1,1,cat,4,.3", "2,2,lamp,4,.1"],
        "index.csv": [
            "image,split,ih,iw,sh,sw,object",
            *(f"set/{number}.png,train,64,64,16,16,set/{number}_o.png" for number in range(4)),
        ],
    }
    path.mkdir()
    for name, lines in tables.items():
        (path / name).write_text("\n".join(lines) + "\n")
    for number in range(4):
        _picture(path / "images" / "set" / f"{number}.png", number)
        labels = np.zeros((16, 16, 3), dtype=np.uint8)
        labels[number : number + 8, :8, 0], labels[8:, 8:, 0] = 1, 2
        Image.fromarray(labels).save(path / "images" / "set" / f"{number}_o.png")


def _mnist(path: Path) -> None:
    rng = np.random.default_rng(0)
    path.mkdir()
    for name, count in (("train", 160), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            header = np.array([2048 + array.ndim, *array.shape], dtype=">i4").tobytes()
            (path / f"{name}-{kind}").write_bytes(header + array.tobytes())


def _animal_part(path: Path) -> None:
    rng = np.random.default_rng(0)
    path.mkdir()
    rows = ["file,category,wnid,head_row,head_col,frontlegs_row,frontlegs_col"]
    for number in range(8):
        row, column = rng.integers(40, 180, 2)
        rows.append(f"cat/n02121808_{number:05d}.png,cat,n02121808,{row},{column},{row + 20},{column}")
        _picture(path / rows[-1].split(",")[0], number, 224, 224)
    (path / "landmarks.csv").write_text("\n".join(rows) + "\n")
    _picture(path / "negatives" / "neg_00000.png", 99, 224, 224)


def _cub(path: Path) -> None:
    parts = [f"part {number}" for number in range(1, 16)]
    images = [f"001.Albatross/{number}.png" for number in range(1, 15)]
    numbered = list(enumerate(images, start=1))
    lines = {
        "images.txt": [f"{n} {name}" for n, name in numbered],
        "classes.txt": ["1 001.Albatross"],
        "image_class_labels.txt": [f"{n} 1" for n, _ in numbered],
        "train_test_split.txt": [f"{n} {int(n > 1)}" for n, _ in numbered],
        "bounding_boxes.txt": [f"{n} 2.0 1.0 50.0 40.0" for n, _ in numbered],
        "parts/parts.txt": [f"{n} {name}" for n, name in enumerate(parts, start=1)],
        "parts/part_locs.txt": [f"{n} {p} {p + 5}.0 {p + 3}.5 1" for n, _ in numbered for p in range(1, 16)],
    }
    (path / "parts").mkdir(parents=True)
    for name, content in lines.items():
        (path / name).write_text("\n".join(content) + "\n")
    for n, name in numbered:
        _picture(path / "images" / name, n)


INPUTS: Mapping[str, Callable[[Path], None]] = {
    "my-slabs": _slabs,
    "my-sites.extxyz": _sites(0),
    "o-on-agirpdptru.extxyz": _oxygen,
    "a.extxyz": _sites(0),
    "b.extxyz": _sites(1),
    "relaxed.extxyz": _sites(0, 24),
    "others.extxyz": _sites(1, 3),
    "candidates.extxyz": _sites(1, 3),
    "photo.jpg": _photograph,
    "photos": _photographs,
    "my-images": _labelled_images,
    "answers.txt": _answers,
    "attributes.csv": _attributes,
    "predictions.csv": _predictions,
    "codes.npz": _codes,
    "scene.png": _scene,
    "broden1_224": _broden,
    "mnist": _mnist,
    "animal-part": _animal_part,
    "CUB_200_2011": _cub,
}
"""What a page may take to be there, by its name; the maker writes it to the path given."""

GIVEN: Mapping[str, str] = {
    "docs/attribution.md": """
import torch
from torch import nn
from torchvision.models import vit_b_16
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(),
                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000))
images = torch.rand(2, 3, 224, 224)
batches = [torch.rand(8, 3, 224, 224) for _ in range(2)]
masks = torch.zeros(2, 224, 224, dtype=torch.bool).numpy()
masks[:, 50:150, 50:150] = True
vit = vit_b_16(weights=None)
stripes, dots, random_photographs = (torch.rand(4, 3, 224, 224) for _ in range(3))
""",
    "docs/diagnosis-data.md": """
import torch
from torch import nn
torch.manual_seed(0)
inputs, test_inputs = torch.randn(40, 5), torch.randn(4, 5)
targets, test_targets = torch.arange(40) % 2, torch.arange(4) % 2
module = nn.Linear(5, 2)
optimiser = torch.optim.LBFGS(module.parameters(), max_iter=200)
def loss():
    optimiser.zero_grad()
    value = nn.functional.cross_entropy(module(inputs), targets) + 0.005 * sum(
        (weight**2).sum() for weight in module.parameters())
    value.backward()
    return value
optimiser.step(loss)
""",
    "docs/disentanglement.md": """
import numpy as np
factors = np.random.default_rng(0).integers(0, 4, (400, 3))
codes = factors + np.random.default_rng(1).normal(0, 0.1, factors.shape)
""",
}
"""What a page's snippets take to be there."""

SMALLER_COMMANDS: Mapping[str, str] = {
    "interpretkit catalyst design": "--n 4",
    "interpretkit catalyst design --model model --target-ev 0.1": "--n 3 --verify 2",
    "interpretkit catalyst optimize": "--sites 64 --elements Pt,Pd,Ru --facets 111",
    "interpretkit catalyst optimize --model": "--sites 64",
    "interpretkit catalyst optimize --elements": "--sites 64 --facets 111",
    "interpretkit catalyst screen --n 1000000": "--n 600 --facets 111 --workers 1",
    "interpretkit catalyst screen --n 200000": "--n 600 --facets 111 --workers 1",
    "interpretkit catalyst latent --out": f"--data a.extxyz --model {SHIPPED}",
    "interpretkit catalyst train": "--quick",
    "interpretkit catalyst train --disentangle": "--data a.extxyz",
    "interpretkit catalyst evaluate": "--quick",
    "interpretkit catalyst evaluate --train my-sites.extxyz --folds 5": "--folds 2 --quick",
    "interpretkit catalyst evaluate --train my-sites.extxyz --split": "--jobs 1",
    "interpretkit catalyst evaluate --train relaxed.extxyz": "--teacher-only",
    "interpretkit catalyst explain": "--per-class 1",
    "interpretkit catalyst sensitivity": "--sites 40 --bars 2 --changes strain,adatom",
    "interpretkit cnn visualize": "--set occlusion.window=112 --set integrated_gradients.steps=2 --set lime.samples=8",
    "interpretkit cnn dissect": "--images 8",
    "interpretkit cnn dissect --model resnet50": "--no-baseline",
    "interpretkit cnn dissect --model quadrupeds/network.safetensors": "--images 8 --no-baseline",
    "interpretkit cnn instability": "--images 12 --top 4",
    "interpretkit cnn train icnn": "--images 16 --epochs 1",
    "interpretkit cnn train icnn --example": "--images 16",
    "interpretkit cnn disentangle tree": "--images 24 --leaves 6",
    "interpretkit cnn disentangle parts": "--images 12 --draws 1 --annotations 1",
    "interpretkit cnn teach": "--images 15 --answers 3",
    "interpretkit cnn disentangle graph": "--images 6 --layer features.13 --rounds 2",
    "interpretkit cnn disentangle graph --graph": "--images 6",
    "interpretkit cnn disentangle concepts": "--images 6 --concepts 3 --codes 6 --epochs 1",
    "interpretkit cnn edit": "--scenes 16 --count 3 --questions 2",
    "interpretkit cnn edit --images": "--count 5",
    "interpretkit cnn edit --images my-images --edit": "",
    "interpretkit cnn train capsnet": "--epochs 1 --routings 3 --no-baseline",
    "interpretkit cnn train capsnet --data": "--epochs 1 --no-baseline",
    "interpretkit cnn train capsnet --example": "",
    "interpretkit cnn train infogan": "--epochs 1",
    "interpretkit cnn train infogan --example": "",
    "interpretkit cnn diagnose adversarial": "--method fgsm,pgd --steps 2",
    "interpretkit cnn diagnose influence": "--leave-out 2 --questions 2",
    "interpretkit cnn diagnose rules": "--labels-per-class 2",
    "interpretkit cnn diagnose vqa": "--scenes 40 --epochs 1 --questions 20",
    "interpretkit cnn train rcnn": "--images 12 --epochs 1 --grid 3",
    "interpretkit cnn train rcnn --example": "--images 12",
    "interpretkit scores": "--bootstrap 5",
}
"""Options that the documentation has, added here to make its lines short; the longest beginning that fits counts."""

SMALLER_SNIPPETS: Mapping[str, Mapping[str, str]] = {
    "docs/datasets.md": {"2000": "20", "composed_concepts(600)": "composed_concepts(6)"},
    "docs/decision-trees.md": {"articulated_images(240": "articulated_images(24"},
    "docs/diagnosis.md": {
        "minimal_perturbation(network, pixels)": "minimal_perturbation(network, pixels, iterations=2)"
    },
    "docs/editing.md": {"articulated_images(60,": "articulated_images(12,"},
    "docs/capsules.md": {"epochs=10": "epochs=1"},
    "docs/infogan.md": {"epochs=30": "epochs=1"},
    "docs/part-graphs.md": {"articulated_images(60,": "articulated_images(20,", "range(60)": "range(20)"},
    "docs/rcnn.md": {"in (300, 150)": "in (12, 10)", "parts=6, epochs=6": "parts=2, epochs=1, grid=3"},
    "docs/tutorial-own-alloy.md": {"range(12)": "range(3)"},
    "docs/metrics.md": {
        "composed_concepts(300)": "composed_concepts(6)",
        "articulated_images(400": "articulated_images(30",
    },
    "docs/interpretable-networks.md": {
        "articulated_images(160": "articulated_images(20",
        "epochs=10": "epochs=1",
    },
    "docs/disentanglement.md": {"1000": "200", "epochs=20": "epochs=1", "resamples=200": "resamples=5"},
}
"""Sizes in a page's snippets, and what they are here."""

SMALLER_DEFAULTS: tuple[tuple[str, str, str, object], ...] = (
    ("cnn_interp.visualization.activation_maximization", "maximize_activation", "steps", 2),
    ("catalysis.studies.design", "search", "n_starts", 1000),
    ("catalysis.studies.design", "search", "n_random", 2000),
)
"""Where there is no option for it: module, function, its parameter, and the value here."""
