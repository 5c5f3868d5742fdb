import builtins
import zipfile

import numpy as np
import pytest

from interpretkit.disentanglement.datasets import (
    SHAPES3D,
    SPRITES,
    read_dsprites,
    read_shapes3d,
    render_shapes3d,
    render_sprites,
)
from interpretkit.errors import InputError

# Circular factors return to where they began.
TURN = SPRITES.names.index("orientation")


def test_sizes_of_the_grids():
    assert SPRITES.sizes == (3, 6, 40, 32, 32)
    assert len(SPRITES) == 737_280
    assert SHAPES3D.sizes == (10, 10, 10, 8, 4, 15)
    assert len(SHAPES3D) == 480_000
    assert SPRITES.at([0, 1, len(SPRITES) - 1]).tolist() == [[0] * 5, [0, 0, 0, 0, 1], [2, 5, 39, 31, 31]]
    assert SPRITES.values_of([[2, 5, 39, 31, 0]])[0] == pytest.approx([3, 1, 2 * np.pi, 1, 0])


def test_draws_are_even_and_seeded():
    factors = SHAPES3D.draw(20_000, seed=1)
    assert np.array_equal(factors, SHAPES3D.draw(20_000, seed=1))
    for column, size in enumerate(SHAPES3D.sizes):
        assert np.bincount(factors[:, column], minlength=size) == pytest.approx(
            np.full(size, 20_000 / size), rel=0.15
        )


def test_sprites_stay_inside_and_move_as_told():
    corners = np.array(
        [[s, 5, o, x, y] for s in range(3) for o in range(0, 40, 3) for x in (0, 31) for y in (0, 31)]
    )
    images = render_sprites(corners)
    assert images.dtype == np.uint8
    assert set(np.unique(images)) == {0, 1}
    frame = np.ones((64, 64), dtype=bool)
    frame[1:-1, 1:-1] = False
    assert not images[:, frame].any()
    # The centre of a square or ellipse is where its factors say.
    factors = SPRITES.draw(200, seed=0)
    factors[:, 0] %= 2
    rows, columns = np.mgrid[:64, :64] + 0.5
    images = render_sprites(factors).astype(float)
    mass = images.sum(axis=(1, 2))
    x = (images * columns).sum(axis=(1, 2)) / mass
    y = (images * rows).sum(axis=(1, 2)) / mass
    values = SPRITES.values_of(factors)
    assert np.abs(x - (16 + 32 * values[:, 3])).max() < 0.6
    assert np.abs(y - (16 + 32 * values[:, 4])).max() < 0.6


def test_sprites_grow_turn_and_differ():
    grown = render_sprites([[2, scale, 0, 16, 16] for scale in range(6)]).sum(axis=(1, 2))
    assert (np.diff(grown) > 0).all()
    assert grown[-1] / grown[0] == pytest.approx(4, rel=0.15)
    heart = render_sprites([[2, 5, o, 16, 16] for o in range(40)])
    assert np.array_equal(heart[0], heart[39])
    assert len(np.unique(heart[:39].reshape(39, -1), axis=0)) == 39
    shapes = render_sprites([[s, 5, 0, 16, 16] for s in range(3)])
    assert len(np.unique(shapes.reshape(3, -1), axis=0)) == 3


def test_rendering_many_is_rendering_each():
    factors = SPRITES.draw(20, seed=2)
    assert np.array_equal(render_sprites(factors), np.concatenate([render_sprites(f[None]) for f in factors]))
    factors = SHAPES3D.draw(12, seed=2)
    assert np.array_equal(
        render_shapes3d(factors), np.concatenate([render_shapes3d(f[None]) for f in factors])
    )


@pytest.mark.parametrize("factor", range(6))
def test_every_value_of_every_factor_shows_in_shapes3d(factor):
    factors = np.tile([1, 4, 7, 5, 0, 4], (SHAPES3D.sizes[factor], 1))
    factors[:, factor] = np.arange(len(factors))
    images = render_shapes3d(factors)
    assert images.shape == (len(factors), 64, 64, 3)
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_hues_colour_their_own_surface_alone():
    base = render_shapes3d([[0, 3, 6, 4, 2, 7]])[0]
    areas = []
    for factor in range(3):
        other = [0, 3, 6, 4, 2, 7]
        other[factor] += 1
        areas.append((render_shapes3d([other])[0] != base).any(axis=-1))
    assert (np.sum(areas, axis=0) == 1).all()
    assert areas[2][32, 32]
    assert areas[1][0].all()
    assert areas[0][-1].all()


def test_objects_grow_with_the_scale():
    for shape in range(4):
        sizes = []
        for scale in range(8):
            red, green = render_shapes3d([[5, 5, hue, scale, shape, 7] for hue in (0, 3)])
            sizes.append((red != green).any(axis=-1).sum())
        assert (np.diff(sizes) > 0).all()


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ([[0, 0, 0, 0]], r"expected whole numbers of shape \(n, 5\)"),
        ([[0.0] * 5], "expected whole numbers"),
        ([[0, 6, 0, 0, 0]], "scale 6; expected 0 to 5"),
        ([[0, 0, -1, 0, 0]], "orientation -1; expected 0 to 39"),
    ],
)
def test_factors_out_of_range(factors, message):
    with pytest.raises(InputError, match=message):
        render_sprites(factors)


@pytest.fixture
def dsprites(tmp_path):
    """A file with the arrays, types and order of the published one, of a few images."""
    rng = np.random.default_rng(0)
    factors = SPRITES.at(np.sort(rng.choice(len(SPRITES), 50, replace=False)))
    path = tmp_path / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    metadata = np.array({"date": "April 2017", "latents_names": ("color", *SPRITES.names)}, dtype=object)
    np.savez_compressed(
        path,
        metadata=metadata,
        imgs=render_sprites(factors),
        latents_classes=np.column_stack([np.zeros(50, dtype=int), factors]),
        latents_values=np.column_stack([np.ones(50), SPRITES.values_of(factors)]),
    )
    return path, factors


def test_dsprites_are_read_without_their_pickle(dsprites):
    path, factors = dsprites
    read = read_dsprites(path)
    assert np.array_equal(read.factors, factors)
    assert np.array_equal(read.images, render_sprites(factors))
    assert np.allclose(read.values, SPRITES.values_of(factors))
    assert read.names == ("shape", "scale", "orientation", "x", "y")
    few = read_dsprites(path, rows=[3, 20, 49])
    assert np.array_equal(few.images, read.images[[3, 20, 49]])
    assert np.array_equal(few.factors, factors[[3, 20, 49]])
    with pytest.raises(InputError, match="ascending numbers from 0 to 49"):
        read_dsprites(path, rows=[20, 3])


def test_bad_dsprites_files(dsprites, tmp_path):
    path, _ = dsprites
    with pytest.raises(InputError, match="no such file"):
        read_dsprites(tmp_path / "absent.npz")
    empty = tmp_path / "empty.npz"
    empty.touch()
    with pytest.raises(InputError, match="empty"):
        read_dsprites(empty)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"cut\.npz: cannot be read"):
        read_dsprites(cut)
    other = tmp_path / "other.npz"
    np.savez(other, images=np.zeros(3))
    with pytest.raises(InputError, match="no array 'imgs'"):
        read_dsprites(other)
    pickled = tmp_path / "pickled.npz"
    np.savez(
        pickled,
        imgs=np.array([{}] * 3),
        latents_classes=np.zeros((3, 6), int),
        latents_values=np.zeros((3, 6)),
    )
    with pytest.raises(InputError, match="expected plain numbers"):
        read_dsprites(pickled)
    short = tmp_path / "short.npz"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(short, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content[:-100] if name == "imgs.npy" else content)
    with pytest.raises(InputError, match="ends early"):
        read_dsprites(short)


def test_shapes3d_are_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    factors = SHAPES3D.at(np.sort(np.random.default_rng(0).choice(len(SHAPES3D), 40, replace=False)))
    path = tmp_path / "3dshapes.h5"
    with h5py.File(path, "w") as file:
        file["images"] = render_shapes3d(factors)
        file["labels"] = SHAPES3D.values_of(factors)
    read = read_shapes3d(path)
    assert np.array_equal(read.factors, factors)
    assert np.array_equal(read.images, render_shapes3d(factors))
    assert np.array_equal(read_shapes3d(path, rows=[1, 39]).images, read.images[[1, 39]])
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(InputError, match="no array 'labels'"):
        read_shapes3d(other)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(InputError, match=r"text\.h5: cannot be read"):
        read_shapes3d(tmp_path / "text.h5")


def test_without_h5py_one_line_says_so(tmp_path, monkeypatch):
    imported = builtins.__import__

    def refuse(name, *rest):
        if name == "h5py":
            raise ModuleNotFoundError("No module named 'h5py'", name="h5py")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    path = tmp_path / "3dshapes.h5"
    path.write_bytes(b"\x89HDF")
    with pytest.raises(InputError, match="needs the package h5py"):
        read_shapes3d(path)
