"""Each reader against a small data set that the test writes in exactly the published format."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cnn_interp.images import (
    ConceptImages,
    LabelledImages,
    PartImages,
    read,
    read_affnist,
    read_animal_part,
    read_broden,
    read_cub,
    read_folder,
    read_jpeg_archive,
    read_labelled_folders,
    read_mnist,
    read_pascal_part,
    read_small_norb,
    write_jpeg_archive,
)
from cnn_interp.images.files import ImageFiles
from cnn_interp.images.mnist import read_idx
from cnn_interp.images.pascal_part import read_objects
from interpretkit.errors import InputError


def write_picture(path: Path, height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


# ----------------------------------------------------------------------------------------------- CUB


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    lines = {
        "images.txt": ["1 001.Albatross/a.png", "2 002.Wren/b c.png"],
        "classes.txt": ["1 001.Albatross", "2 002.Wren"],
        "image_class_labels.txt": ["1 1", "2 2"],
        "train_test_split.txt": ["1 0", "2 1"],
        "bounding_boxes.txt": ["1 2.0 1.0 5.0 4.0", "2 0.0 0.0 8.0 6.0"],
        "parts/parts.txt": ["1 back", "2 left eye"],
        "parts/part_locs.txt": ["1 1 3.5 2.0 1", "1 2 0.0 0.0 0", "2 1 7.0 5.0 1", "2 2 1.0 0.0 1"],
    }
    for name, content in lines.items():
        (tmp_path / name).write_text("\n".join(content) + "\n")
    for seed, name in enumerate(("001.Albatross/a.png", "002.Wren/b c.png")):
        write_picture(tmp_path / "images" / name, seed=seed)
    return tmp_path


def test_cub(cub: Path) -> None:
    images = read_cub(cub)
    assert images.part_names == ("back", "left eye")
    assert images.category_names == ("001.Albatross", "002.Wren")
    assert images.categories.tolist() == [0, 1]
    assert images.split is not None
    assert images.split.tolist() == ["test", "train"]
    np.testing.assert_equal(images.landmarks[0], [[2, 3.5], [np.nan, np.nan]])
    np.testing.assert_equal(images.landmarks[1], [[5, 7], [0, 1]])
    assert images.boxes is not None
    assert images.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 5, 7]]
    assert images.image(1).shape == (6, 8, 3)
    assert images.size(1) == (6, 8)
    assert images.ids[1] == "002.Wren/b c.png"


def test_cub_crop(cub: Path) -> None:
    images = read_cub(cub)
    crops = images.cropped(10)
    # Rows 1–4 of box 4 high become 10 rows: row 2 has its centre at 1.5 of 4, that is 3.75 of 10, less half a pixel.
    np.testing.assert_allclose(crops.landmarks[0, 0], [1.5 / 4 * 10 - 0.5, 2.0 / 5 * 10 - 0.5])
    assert crops.image(0).shape == (10, 10, 3)
    whole = images.image(0)[1:5, 2:7]
    assert abs(crops.image(0).mean() - whole.mean()) < 12


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("parts/part_locs.txt", "1 1 3.5\n", "expected 5 numbers"),
        ("parts/part_locs.txt", "9 1 3.5 2 1\n", "listed nowhere"),
        ("classes.txt", "Albatross\n", "expected a number and a text"),
    ],
)
def test_cub_refuses(cub: Path, file: str, content: str, match: str) -> None:
    (cub / file).write_text(content)
    with pytest.raises(InputError, match=match):
        read_cub(cub)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file images\.txt"):
        read_cub(tmp_path)
    with pytest.raises(InputError, match=r"landmarks\.csv: no such file"):
        read_animal_part(tmp_path)
    with pytest.raises(InputError, match=r"category\.csv: no such file"):
        read_broden(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_mnist(tmp_path / "nowhere")


# --------------------------------------------------------------------------------------- animal-part


@pytest.fixture
def animal_part(tmp_path: Path) -> Path:
    rows = [
        "file,category,wnid,head_row,head_col,frontlegs_row,frontlegs_col",
        "cat/n02121808_00001.png,cat,n02121808,74,147.5,196,166",
        "cat/n02121808_00002.png,cat,n02121808,75.5,113.5,,",
        "tiger/n02129604_00001.png,tiger,n02129604,,,,",
    ]
    (tmp_path / "landmarks.csv").write_text("\n".join(rows) + "\n")
    for row in rows[1:]:
        write_picture(tmp_path / row.split(",")[0], 224, 224)
    write_picture(tmp_path / "negatives" / "neg_00003.png", 224, 224)
    return tmp_path


def test_animal_part(animal_part: Path) -> None:
    images = read_animal_part(animal_part)
    assert images.part_names == ("head", "front legs")
    assert images.categories.tolist() == [0, 0, 1, -1]
    # MATLAB counts pixels from 1.
    assert images.landmarks[0].tolist() == [[73, 146.5], [195, 165]]
    assert images.annotated.tolist() == [[True, True], [True, False], [False, False], [False, False]]
    assert not images.absence_known
    assert images.groups is not None
    assert images.groups[0] == images.groups[1] != images.groups[2] != images.groups[3]
    assert len(images.of_category("tiger")) == 1
    assert images.of_category("negative").ids == ("negatives/neg_00003.png",)
    assert len(read_animal_part(animal_part, negatives=False)) == 3
    with pytest.raises(InputError, match="category zebra"):
        images.of_category("zebra")


def test_animal_part_refuses_words(animal_part: Path) -> None:
    table = animal_part / "landmarks.csv"
    table.write_text(table.read_text().replace("147.5", "left"))
    with pytest.raises(InputError, match="expected numbers"):
        read_animal_part(animal_part)


# --------------------------------------------------------------------------------------- PASCAL-Part


def write_annotation(path: Path, objects: list[tuple[str, np.ndarray, dict[str, np.ndarray]]]) -> None:
    """Write a struct as MATLAB's own annotations are."""
    kinds = [("class", "O"), ("class_ind", "O"), ("bbox", "O"), ("mask", "O"), ("parts", "O")]
    table = np.empty((1, len(objects)), dtype=kinds)
    for place, (name, mask, parts) in enumerate(objects):
        inner = np.empty((1, len(parts)), dtype=[("part_name", "O"), ("mask", "O")])
        for column, (part, where) in enumerate(parts.items()):
            inner[0, column] = (part, where.astype(np.uint8))
        empty = np.zeros((0, 0))
        table[0, place] = (name, 3, [1, 1, 4, 4], mask.astype(np.uint8), inner if parts else empty)
    savemat(path, {"anno": {"imname": path.stem, "objects": table}})


@pytest.fixture
def pascal_part(tmp_path: Path) -> Path:
    (tmp_path / "Annotations_Part").mkdir()

    def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
        mask = np.zeros((20, 30), dtype=bool)
        mask[top : bottom + 1, left : right + 1] = True
        return mask

    horse = (
        "horse",
        box(2, 4, 13, 23),
        {"head": box(2, 4, 5, 9), "lfuleg": box(8, 6, 13, 7), "rfuleg": box(8, 10, 12, 11)},
    )
    bird = ("bird", box(0, 0, 3, 3), {"beak": box(1, 0, 1, 0)})
    table = ("table", box(15, 15, 19, 29), {})
    write_annotation(tmp_path / "Annotations_Part" / "2008_000002.mat", [horse, bird])
    write_annotation(tmp_path / "Annotations_Part" / "2008_000008.mat", [table])
    for name in ("2008_000002", "2008_000008"):
        write_picture(tmp_path / "JPEGImages" / f"{name}.jpg", 20, 30)
    return tmp_path


def test_pascal_part(pascal_part: Path) -> None:
    images = read_pascal_part(pascal_part)
    assert images.ids == ("2008_000002/0", "2008_000002/1", "2008_000008/0")
    assert [images.category_names[c] for c in images.categories] == ["horse", "bird", "table"]
    assert images.part_names == ("beak", "head", "lfuleg", "rfuleg")
    assert images.groups is not None
    assert images.groups.tolist() == [0, 0, 1]
    assert images.boxes is not None
    assert images.boxes[0].tolist() == [2, 4, 13, 23]
    np.testing.assert_equal(images.landmarks[0], [[np.nan] * 2, [3.5, 6.5], [10.5, 6.5], [10, 10.5]])
    masks = images.masks(0)
    assert masks.shape == (4, 20, 30)
    assert masks.sum(axis=(1, 2)).tolist() == [0, 24, 12, 10]
    assert not images.masks(2).any()


def test_pascal_part_joins_parts_and_crops(pascal_part: Path) -> None:
    legs = {"legs": ["lfuleg", "rfuleg", "lbuleg"], "head": ["head"]}
    images = read_pascal_part(pascal_part, categories=["horse"], parts=legs)
    assert images.ids == ("2008_000002/0",)
    assert images.part_names == ("legs", "head")
    assert images.landmarks[0].tolist() == [[10.5, 8.5], [3.5, 6.5]]
    crop = images.cropped(60)
    mask = crop.masks(0)[1]
    # The head is the first 4 of 12 rows and the first 6 of 20 columns of the box.
    assert np.flatnonzero(mask.any(axis=1)).tolist() == list(range(20))
    assert np.flatnonzero(mask.any(axis=0)).tolist() == list(range(18))
    np.testing.assert_allclose(crop.landmarks[0, 1], [9.5, 8.5])


def test_pascal_part_refuses(pascal_part: Path) -> None:
    (pascal_part / "JPEGImages" / "2008_000008.jpg").unlink()
    with pytest.raises(InputError, match="2008_000008"):
        read_pascal_part(pascal_part)
    savemat(pascal_part / "Annotations_Part" / "2009_000001.mat", {"other": 1})
    with pytest.raises(InputError, match="expected an annotation of PASCAL-Part"):
        read_pascal_part(pascal_part)


# -------------------------------------------------------------------------------------------- Broden


@pytest.fixture
def broden(tmp_path: Path) -> Path:
    tables = {
        "category.csv": [
            "name,first,last,count,frequency",
            "color,0,1,2,2",
            "object,1,300,2,2",
            "scene,4,4,1,1",
        ],
        "label.csv": [
            "number,name,category,frequency,coverage,syns",
            "0,-,,0,0,",
            "1,red-c,color(2),2,1.0,",
            "2,cat,object(2);part(1),2,0.3,",
            "300,lamp,object(1),1,0.1,",
            "4,street-s,scene(1),1,1.0,",
        ],
        "c_object.csv": [
            "code,number,name,frequency,coverage",
            "0,0,-,0,0",
            "1,2,cat,2,.3",
            "2,300,lamp,1,.1",
        ],
        "index.csv": [
            "image,split,ih,iw,sh,sw,color,object,scene",
            "set/a.png,train,8,8,4,4,1,set/a_o1.png;set/a_o2.png,4",
            "set/b.png,val,8,8,4,4,set/b_c.png,,",
        ],
    }
    for name, lines in tables.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    for seed, name in enumerate("ab"):
        write_picture(tmp_path / "images" / "set" / f"{name}.png", 8, 8, seed)
    first, second, colour = (np.zeros((4, 4, 3), dtype=np.uint8) for _ in range(3))
    first[:2, :, 0] = 2
    second[1:3, :2] = (300 % 256, 300 // 256, 0)
    colour[0, 0, 0] = 1
    for name, labels in {"a_o1": first, "a_o2": second, "b_c": colour}.items():
        Image.fromarray(labels).save(tmp_path / "images" / "set" / f"{name}.png")
    return tmp_path


def test_broden(broden: Path) -> None:
    images = read_broden(broden)
    assert images.categories == ("color", "object", "scene")
    assert [(c.number, c.name, c.category) for c in images.labels][1:3] == [
        (2, "cat", "object"),
        (300, "lamp", "object"),
    ]
    assert images.map_size == (4, 4)
    assert images.split is not None
    assert images.split.tolist() == ["train", "val"]
    found = images.concepts(0)
    assert found["color"] == (1,)
    assert found["scene"] == (4,)
    assert len(found["object"]) == 2
    assert np.unique(np.asarray(found["object"][1])).tolist() == [0, 300]
    assert images.concepts(1)["object"] == ()
    masks = images.masks(0)
    assert {number: int(mask.sum()) for number, mask in masks.items()} == {1: 16, 2: 8, 300: 4, 4: 16}
    # Both labels hold where two maps overlap.
    assert (masks[2] & masks[300]).sum() == 2
    assert images.masks(0, (8, 8))[300].sum() == 16
    maps = images.label_maps(1)
    assert maps["object"].shape == (0, 4, 4)
    assert maps["color"].sum() == 1
    assert images.image(0).shape == (8, 8, 3)
    assert images.subset([1]).concepts(0)["scene"] == ()


def test_broden_refuses(broden: Path) -> None:
    table = broden / "c_object.csv"
    table.write_text(table.read_text() + "3,77,dog,1,.1\n")
    with pytest.raises(InputError, match=r"label 77 is not in label\.csv"):
        read_broden(broden)
    table.unlink()
    (broden / "images" / "set" / "a_o2.png").unlink()
    with pytest.raises(InputError, match=r"a_o2\.png: no such file"):
        read_broden(broden).concepts(0)


# ----------------------------------------------------------------------------- MNIST, affNIST, NORB


def idx(array: np.ndarray) -> bytes:
    magic = 2048 + array.ndim
    return np.array([magic, *array.shape], dtype=">i4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(tmp_path: Path, packed: bool) -> None:
    rng = np.random.default_rng(0)
    pixels = {"train": rng.integers(0, 256, (3, 28, 28)), "t10k": rng.integers(0, 256, (2, 28, 28))}
    labels = {"train": np.array([5, 0, 4]), "t10k": np.array([7, 2])}
    for name in pixels:
        for kind, array in (("images-idx3-ubyte", pixels[name]), ("labels-idx1-ubyte", labels[name])):
            content = idx(array)
            path = tmp_path / (f"{name}-{kind}.gz" if packed else f"{name}-{kind}")
            path.write_bytes(gzip.compress(content) if packed else content)
    images = read_mnist(tmp_path)
    assert images.labels.tolist() == [5, 0, 4, 7, 2]
    assert images.split is not None
    assert images.split.tolist() == ["train"] * 3 + ["test"] * 2
    np.testing.assert_array_equal(images.image(3)[..., 1], pixels["t10k"][0])
    assert images.stack(28).shape == (5, 28, 28, 3)


def test_mnist_refuses(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 28, 28))))
    with pytest.raises(InputError, match="only one file of train"):
        read_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3)))
    with pytest.raises(InputError, match="3 labels; expected 2"):
        read_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros((2, 2))))
    with pytest.raises(InputError, match="begins with 2050; expected 2049"):
        read_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(2))[:-1])
    with pytest.raises(InputError, match="1 bytes of data"):
        read_mnist(tmp_path)


def test_affnist(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1600, 3), dtype=np.uint8)
    for name, columns in (("2", [0, 1]), ("10", [2])):
        label = np.array([[7, 1, 3]], dtype=np.uint8)[:, columns]
        savemat(tmp_path / f"{name}.mat", {"affNISTdata": {"image": pixels[:, columns], "label_int": label}})
    images = read_affnist(tmp_path)
    assert images.labels.tolist() == [7, 1, 3]
    assert images.ids == ("2/0", "2/1", "10/0")
    np.testing.assert_array_equal(images.image(1)[..., 0], pixels[:, 1].reshape(40, 40))
    assert len(read_affnist(tmp_path / "10.mat")) == 1


NORB_TYPES = {"u1": 0x1E3D4C55, "<i4": 0x1E3D4C54}


def norb(array: np.ndarray, kind: str) -> bytes:
    """At least three sizes are written, whatever the number of dimensions."""
    sizes = [*array.shape, 1, 1][: max(array.ndim, 3)]
    return (
        np.array([NORB_TYPES[kind], array.ndim, *sizes], dtype="<i4").tobytes() + array.astype(kind).tobytes()
    )


@pytest.mark.parametrize("packed", [False, True])
def test_small_norb(tmp_path: Path, packed: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 96, 96))
    info = np.array([[8, 0, 34, 5], [6, 4, 2, 0], [8, 8, 0, 1]])
    contents = {"dat": norb(pixels, "u1"), "cat": norb(np.array([0, 1, 0]), "<i4"), "info": norb(info, "<i4")}
    for kind, content in contents.items():
        name = f"smallnorb-5x46789x9x18x6x2x96x96-training-{kind}.mat"
        path = tmp_path / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    images = read_small_norb(tmp_path, camera=1)
    assert images.labels.tolist() == [0, 1, 0]
    assert images.factors is not None
    assert images.factors.tolist() == [[0, 8, 0, 17, 5], [1, 6, 4, 1, 0], [0, 8, 8, 0, 1]]
    assert images.groups is not None
    assert images.groups[0] == images.groups[2] != images.groups[1]
    np.testing.assert_array_equal(images.image(2)[..., 0], pixels[2, 1])
    with pytest.raises(InputError, match="camera 2"):
        read_small_norb(tmp_path, camera=2)


def test_small_norb_refuses(tmp_path: Path) -> None:
    path = tmp_path / "x-training-dat.mat"
    path.write_bytes(norb(np.zeros((1, 2, 4, 4)), "u1"))
    with pytest.raises(InputError, match="no file that ends in -training-cat"):
        read_small_norb(tmp_path)
    path.write_bytes(b"MATLAB 5.0 MAT-file, not NORB's own")
    for kind in ("cat", "info"):
        (tmp_path / f"x-training-{kind}.mat").write_bytes(norb(np.zeros((1, 4)), "<i4"))
    with pytest.raises(InputError, match="does not begin"):
        read_small_norb(tmp_path)
    path.write_bytes(norb(np.zeros((1, 2, 4, 4)), "u1")[:-1])
    with pytest.raises(InputError, match="31 bytes of data"):
        read_small_norb(tmp_path)


# ---------------------------------------------------------------------------- folders and archives


def test_folders(tmp_path: Path) -> None:
    for name in ("wren/b.png", "wren/a.png", "albatross/c.png", ".hidden/d.png"):
        write_picture(tmp_path / name)
    (tmp_path / "wren" / "notes.txt").write_text("no picture")
    images = read_labelled_folders(tmp_path)
    assert images.ids == ("albatross/c.png", "wren/a.png", "wren/b.png")
    assert images.labels.tolist() == [0, 1, 1]
    assert images.category_names == ("albatross", "wren")
    # As some file browsers leave beside each photograph.
    (tmp_path / "wren" / "._a.png").write_bytes(b"no picture")
    flat = read_folder(tmp_path / "wren")
    assert flat.ids == ("a.png", "b.png")
    with pytest.raises(InputError, match="no pictures in it"):
        read_folder(tmp_path)
    with pytest.raises(InputError, match="no subfolders with pictures"):
        read_labelled_folders(tmp_path / "wren")


def test_numbered_folders_keep_their_numbers(tmp_path: Path) -> None:
    for name in ("10/a.png", "9/a.png", "0/a.png"):
        write_picture(tmp_path / name)
    images = read_labelled_folders(tmp_path)
    assert images.labels.tolist() == [0, 9, 10]
    assert images.ids[-1] == "10/a.png"


def test_jpeg_archive(tmp_path: Path) -> None:
    for seed, name in enumerate(("a/0.png", "a/1.png", "b/2.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16 + seed, 16), (40 * seed, 90, 200)).save(path)
    images = read_labelled_folders(tmp_path / "pictures")
    archive = tmp_path / "archive.npz"
    write_jpeg_archive(archive, images)
    back = read_jpeg_archive(archive)
    assert back.labels.tolist() == [0, 0, 1]
    assert back.category_names == ("a", "b")
    assert back.image(2).shape == (16, 18, 3)
    for index in range(3):
        assert np.abs(back.image(index).astype(int) - images.image(index)).max() <= 4

    with np.load(archive) as arrays:
        content = dict(arrays)
    parts = {
        f"{part}_{key}": content[key] for part in ("train", "test") for key in ("jpeg", "offsets", "labels")
    }
    np.savez(tmp_path / "split.npz", **parts)
    split = read_jpeg_archive(tmp_path / "split.npz")
    assert split.split is not None
    assert split.split.tolist() == ["train"] * 3 + ["test"] * 3

    np.savez(
        tmp_path / "short.npz",
        jpeg=content["jpeg"],
        offsets=content["offsets"][:-1],
        labels=content["labels"],
    )
    with pytest.raises(InputError, match="expected one more than labels"):
        read_jpeg_archive(tmp_path / "short.npz")
    for key, value, said in [
        ("labels", np.array([0.0, np.nan, 1.0]), "labels is float64 of shape"),
        ("labels", np.array([0, -1, 1]), "labels go down to -1"),
        ("offsets", np.array(0), "offsets is int64 of shape"),
        ("jpeg", content["jpeg"].astype(float), "expected a row of bytes"),
    ]:
        np.savez(tmp_path / "odd.npz", **{**content, key: value})
        with pytest.raises(InputError, match=said):
            read_jpeg_archive(tmp_path / "odd.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(InputError, match="expected jpeg, offsets, labels"):
        read_jpeg_archive(tmp_path / "other.npz")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", jpeg=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_jpeg_archive(tmp_path / "evil.npz")
    assert "allow_pickle" not in str(caught.value)


# -------------------------------------------------------------------------------------------- by kind


def test_read_by_kind(cub: Path) -> None:
    assert isinstance(read("cub", cub), PartImages)
    assert isinstance(read("images", cub / "images" / "002.Wren"), object)
    assert isinstance(read("labelled-images", cub / "images"), LabelledImages)
    with pytest.raises(InputError, match=r"kind birds: expected one of .*animal-part"):
        read("birds", cub)


def test_read_concepts_by_kind(broden: Path) -> None:
    assert isinstance(read("broden", broden), ConceptImages)


def test_pictures_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="8 bits"):
        read_folder(tmp_path).image(0)


def test_photographs_of_a_set_stand_upright_and_those_annotated_by_pixel_as_stored(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    images = read_folder(tmp_path)
    assert np.array_equal(images.image(0), np.rot90(pixels, -1))
    assert images.size(0) == (9, 6)
    stored = ImageFiles([tmp_path / "turned.png"], upright=False)
    assert np.array_equal(stored.pixels(0), pixels)
    assert stored.size(0) == (6, 9)


def test_transparent_images_of_a_set_lie_on_white(tmp_path: Path) -> None:
    hidden = np.full((4, 4, 4), 9, dtype=np.uint8)
    hidden[..., 3] = [0, 0, 255, 255]
    Image.fromarray(hidden).save(tmp_path / "hole.png")
    assert read_folder(tmp_path).image(0)[0, :, 0].tolist() == [255, 255, 9, 9]


@pytest.mark.parametrize("reader", [read_objects, read_affnist])
def test_matlab_files_of_version_7_3_are_named(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    # scipy goes by the version in the header.
    head = b"MATLAB 7.3 MAT-file".ljust(124) + (0x0200).to_bytes(2, "little") + b"IM"
    file = tmp_path / "1.mat"
    file.write_bytes(head.ljust(600, b"\0"))
    with pytest.raises(InputError, match=r"7\.3"):
        reader(file)


@pytest.mark.parametrize("reader", [read_objects, read_affnist])
def test_damaged_matlab_files_are_read_or_refused(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    part = {"part_name": "head", "mask": np.eye(6, dtype=np.uint8)}
    one = {"class": "bird", "mask": np.ones((6, 6), np.uint8), "parts": [part, part]}
    struct = {"image": np.zeros((1600, 2), np.uint8), "label_int": [3, 4]}
    whole = tmp_path / "whole.mat"
    savemat(
        whole, {"anno": {"imname": "1", "objects": [one, one]}, "affNISTdata": struct}, do_compression=True
    )
    reader(whole)
    content = whole.read_bytes()
    refused = []
    draw = np.random.default_rng(0)
    for place in range(128, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= int(draw.integers(1, 256))
        file = tmp_path / "damaged.mat"
        file.write_bytes(damaged if place % 4 else damaged[:place])
        try:
            reader(file)
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(line.startswith(str(tmp_path)) and "\n" not in line for line in refused)


def test_damaged_packed_files_are_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(bytes(range(256)) * 20))
    packed[12:40] = bytes(28)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(packed)
    with pytest.raises(InputError, match="cannot be read"):
        read_idx(file, 2051)
