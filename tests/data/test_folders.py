import os
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from cnnprobe.data.folders import image_folder


def save(path, value=0, *, size=(6, 4), mode="L", **options):
    """An image of one gray value; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


@pytest.fixture
def root(tmp_path):
    for number in range(5):
        save(tmp_path / "cat" / f"{number}.png", 10 * number)
        save(tmp_path / "dog" / f"{number}.JPG", 200)
    return tmp_path


def test_folders_become_labels_in_the_order_of_their_names(root):
    images, labels = image_folder(root, valid_share=0.0, raw=True).train
    assert labels.tolist() == [0] * 5 + [1] * 5
    assert images[:5, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]


def test_shape_and_channels_are_those_of_the_first_image(root):
    assert image_folder(root).train.images.shape == (8, 4, 6, 1)


def test_images_are_scaled_unless_raw(root):
    scaled, raw = (image_folder(root, valid_share=0.0, raw=raw).train.images for raw in (False, True))
    assert (scaled.dtype, raw.dtype) == (np.float32, np.uint8)
    np.testing.assert_allclose(scaled, raw / 255, rtol=1e-6)


def test_a_share_is_split_off_for_validation(root):
    train, valid, class_names, _ = image_folder(root, valid_share=0.3)
    assert (len(train.labels), len(valid.labels), class_names) == (7, 3, ("cat", "dog"))


@pytest.mark.parametrize(("size", "shape"), [(8, (8, 8)), ((2, 3), (2, 3)), (np.int64(5), (5, 5))])
@pytest.mark.parametrize("channels", [1, 3])
def test_size_and_channels_can_be_asked_for(root, size, shape, channels):
    save(root / "dog" / "large.png", 200, size=(31, 17))
    images = image_folder(root, size=size, channels=channels, valid_share=0.0, raw=True).train.images
    assert images.shape == (11, *shape, channels)
    assert np.ptp(images[5:]) <= 1  # resizing leaves one gray value alone


@pytest.mark.parametrize("names", [("train", "valid"), ("Training", "Validation"), ("train", "val"), ("train", "test")])
def test_parts_may_have_folders_of_their_own(tmp_path, names):
    for name, num in zip(names, (3, 2), strict=True):
        for number in range(num):
            save(tmp_path / name / "a" / f"{number}.png")
            save(tmp_path / name / "b" / f"{number}.png")
    train, valid, class_names, _ = image_folder(tmp_path)
    assert (len(train.labels), len(valid.labels), class_names) == (6, 4, ("a", "b"))


def test_labels_of_both_parts_agree_when_one_lacks_a_class(tmp_path):
    for path in ("train/a", "train/b", "train/c", "valid/b", "valid/c"):
        save(tmp_path / path / "1.png")
    assert image_folder(tmp_path).valid.labels.tolist() == [1, 2]


def test_classes_may_be_called_like_parts(tmp_path):
    for name in ("train", "bus"):
        save(tmp_path / name / "1.png")
        save(tmp_path / name / "2.png")
    assert image_folder(tmp_path, valid_share=0.5).class_names == ("bus", "train")


def test_only_files_that_are_images_by_name_are_read(root):
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / "cat" / "._0.png").write_bytes(b"of another system")
    (root / ".cache").mkdir()
    (root / "empty").mkdir()
    assert image_folder(root).class_names == ("cat", "dog")


def broken_files(root):
    good = (root / "cat" / "1.png").read_bytes()
    return {"empty": b"", "text": b"no image", "cut": good[:40], "magic": good[:8], "damaged": good[:45] + b"?" * 9}


def test_broken_files_are_named_and_left_out(root):
    for name, data in broken_files(root).items():
        (root / "cat" / f"{name}.png").write_bytes(data)
    with pytest.warns(UserWarning, match=r"5 of 15 image files cannot be read: .*cut\.png .*; and 2 more"):
        train, _, _, skipped = image_folder(root, valid_share=0.0)
    assert len(train.labels) == 10
    assert {file.path.stem for file in skipped} == set(broken_files(root))


def bomb_of(width, height):
    """A small PNG file that claims to be large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("side", "reason"), [(9000, "9000 x 9000 pixels are more than"), (60000, "DecompressionBomb")])
def test_decompression_bombs_are_refused(root, side, reason):
    (root / "cat" / "bomb.png").write_bytes(bomb_of(side, side))
    with pytest.warns(UserWarning, match="1 of 11 image files cannot be read"):
        (skipped,) = image_folder(root).skipped
    assert reason in skipped.reason


@pytest.mark.parametrize(
    ("mode", "value", "gray"),
    [("RGB", (10, 20, 30), 18), ("RGBA", (50, 50, 50, 7), 50), ("P", 0, 0), ("1", 1, 255), ("I;16", 257 * 100, 100)],
)
def test_every_kind_of_pixel_is_read(tmp_path, mode, value, gray):
    for path in ("a/1.png", "b/1.png"):
        save(tmp_path / path, value, mode=mode)
    images = image_folder(tmp_path, channels=1, valid_share=0.0, raw=True).train.images
    assert np.unique(images).tolist() == [gray]


def test_pictures_taken_with_a_turned_camera_stand_upright(root):
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    save(root / "cat" / "0.jpg", 5, size=(6, 4), exif=turned)
    (root / "cat" / "0.png").unlink()
    assert image_folder(root).train.images.shape[1:] == (6, 4, 1)


def test_the_first_broken_file_does_not_decide_the_size(root):
    (root / "cat" / "0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 of 10"):
        assert image_folder(root).train.images.shape[1:] == (4, 6, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be a whole number of at least 1, got 0"),
        ({"size": (4, 4, 1)}, r"size must be one number or \(height, width\), got \(4, 4, 1\)"),
        ({"size": (4, 2.5)}, r"size must be a whole number of at least 1, got 2.5"),
        ({"channels": 4}, "channels must be 1, 3 or None, got 4"),
        ({"valid_share": 1.5}, "share must leave examples in both parts of 10, got 1.5"),
    ],
)
def test_bad_arguments_are_refused(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        image_folder(root, **arguments)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"root must be a folder, got '.*nowhere', which is missing"):
        image_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("num_classes", [0, 1])
def test_fewer_than_two_classes_are_refused(tmp_path, num_classes):
    save(tmp_path / "1.png")
    for number in range(num_classes):
        save(tmp_path / f"class{number}" / "1.png")
    with pytest.raises(ValueError, match=r"a folder of images for each of two or more classes, got \[.*\] in "):
        image_folder(tmp_path)


def test_a_folder_of_broken_files_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match="root must hold images that can be read, got 2 broken ones"):
        image_folder(tmp_path)


def test_pillow_is_asked_for(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "cnnprobe\[images\]"'):
        image_folder(root)


def test_names_that_are_no_text_can_be_printed(tmp_path):
    for name in (b"cat\xff", b"\x1b[2Jdog"):
        folder = tmp_path / os.fsdecode(name)
        try:
            save(folder / "1.png", 0)
        except (OSError, UnicodeError):
            pytest.skip("this file system takes no such names")
    assert image_folder(tmp_path, valid_share=0.0).class_names == ("\\x1b[2Jdog", "cat\\udcff")
