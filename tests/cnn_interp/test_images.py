import numpy as np
import pytest
from PIL import Image

from cnn_interp.images.files import find_images, in_batches, photograph, read_image
from interpretkit.errors import InputError


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options) if mode else Image.fromarray(array).save(
        path, **options
    )
    return path


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_rgb_and_grey_come_unchanged(tmp_path, pixels):
    assert np.array_equal(np.asarray(read_image(save(tmp_path / "a.png", pixels))), pixels)
    grey = read_image(save(tmp_path / "b.png", pixels[..., 0]))
    assert np.array_equal(np.asarray(grey), np.repeat(pixels[..., :1], 3, 2))


def test_the_camera_orientation_is_followed(tmp_path, pixels):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(path, exif=exif)
    assert np.array_equal(np.asarray(read_image(path)), np.rot90(pixels, -1))


def test_opaque_alpha_is_accepted_and_transparency_is_not(tmp_path, pixels):
    opaque = np.dstack([pixels, np.full((20, 30, 1), 255, np.uint8)])
    assert np.array_equal(np.asarray(read_image(save(tmp_path / "a.png", opaque))), pixels)
    opaque[0, 0, 3] = 0
    path = save(tmp_path / "b.png", opaque)
    with pytest.raises(InputError, match=r"b\.png: is transparent in places; expected an opaque"):
        read_image(path)
    converted = np.asarray(read_image(path, convert=True))
    assert converted[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(converted[1:], pixels[1:])


def test_cmyk_is_refused_unless_it_is_to_be_converted(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)
    with pytest.raises(InputError, match="CMYK"):
        read_image(path)
    red, green, blue = np.asarray(read_image(path, convert=True))[8, 8].tolist()
    assert red > 240
    assert green < 15
    assert blue < 15


def test_sixteen_bits_are_refused_unless_they_are_to_be_scaled(tmp_path):
    path = save(tmp_path / "deep.png", np.linspace(1000, 21000, 16 * 16).reshape(16, 16).astype(np.uint16))
    with pytest.raises(InputError, match="more than 8 bits"):
        read_image(path)
    scaled = np.asarray(read_image(path, convert=True))[..., 0]
    assert (scaled.min(), scaled.max()) == (0, 255)
    assert (np.diff(scaled.ravel().astype(int)) >= 0).all()


def test_what_is_no_image_is_named(tmp_path, pixels):
    text = tmp_path / "note.png"
    text.write_text("no picture")
    cut = save(tmp_path / "whole.png", pixels)
    damaged = tmp_path / "cut.png"
    damaged.write_bytes(cut.read_bytes()[:200])
    single = save(tmp_path / "one.png", np.zeros((1, 1, 3), np.uint8))
    (tmp_path / "empty.jpg").touch()
    for name, said in [
        ("note.png", "is not an image"),
        ("cut.png", "cannot be read as an image"),
        ("empty.jpg", "is not an image"),
        ("absent.png", "no such file"),
    ]:
        with pytest.raises(InputError, match=said):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match="1 × 1 px; expected at least 8"):
        read_image(single)


def test_folders_are_searched_in_the_order_of_names(tmp_path, pixels):
    (tmp_path / "b").mkdir()
    for name in ("z.png", "a.PNG", "b/c.png"):
        save(tmp_path / name, pixels, format="png")
    (tmp_path / "readme.txt").write_text("words")
    (tmp_path / ".previews").mkdir()
    for name in ("._a.PNG", ".previews/a.png"):
        (tmp_path / name).write_bytes(b"no picture")
    found = find_images([tmp_path])
    assert [str(p.relative_to(tmp_path)) for p in found] == ["a.PNG", "b/c.png", "z.png"]
    batches = list(in_batches(found, 2))
    assert [len(images) for _, images in batches] == [2, 1]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        find_images([tmp_path / "none"])
    with pytest.raises(InputError, match="no such file or folder"):
        find_images([tmp_path / "absent"])
    with pytest.raises(InputError, match="is no name"):
        find_images([""])


def test_the_default_photograph_comes_with_a_package():
    assert photograph().size == (451, 300)
    with pytest.raises(InputError, match="expected one of astronaut"):
        photograph("nobody")
