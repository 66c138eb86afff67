import gzip
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnprobe.data.files import idx_dataset, npz_dataset, read_idx

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([1, 0], np.uint8)


def idx_bytes(array, code=0x08):
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "labels"), ("x", "y"), ("X_train", "Y_train"), ("train_images", "train_labels")]
)
def test_npz_finds_the_usual_names(tmp_path, images, labels):
    np.savez(tmp_path / "a.npz", **{images: IMAGES, labels: LABELS, "other": np.zeros(1)})
    train, valid = npz_dataset(tmp_path / "a.npz")
    np.testing.assert_array_equal(train.images, IMAGES[..., None])
    assert (train.labels.tolist(), valid) == ([1, 0], None)


@pytest.mark.parametrize("part", ["test", "val", "valid", "validation"])
@pytest.mark.parametrize("pattern", [("x_{}", "y_{}"), ("{}_images", "{}_labels")])
def test_npz_finds_the_validation_part(tmp_path, part, pattern):
    arrays = {pattern[0].format("train"): IMAGES, pattern[1].format("train"): LABELS}
    arrays |= {pattern[0].format(part): IMAGES[:1], pattern[1].format(part): LABELS[:1]}
    np.savez(tmp_path / "a.npz", **arrays)
    assert npz_dataset(str(tmp_path / "a.npz"))[1].images.shape == (1, 3, 4, 1)


def test_npz_prefers_validation_to_test(tmp_path):
    parts = {"x_test": IMAGES[:1], "y_test": LABELS[:1], "x_val": IMAGES, "y_val": LABELS}
    np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS, **parts)
    assert len(npz_dataset(tmp_path / "a.npz")[1].labels) == 2


def test_npz_leaves_values_and_channels_alone(tmp_path):
    images, labels = np.full((2, 3, 4, 3), 300.5), np.eye(2)
    np.savez_compressed(tmp_path / "a.npz", images=images, labels=labels)
    np.testing.assert_array_equal(npz_dataset(tmp_path / "a.npz")[0].images, images)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES, "labels": LABELS}, r"must hold images and labels, .* got \['labels', 'pictures'\]"),
        ({"images": IMAGES, "labels": LABELS[:1]}, "images and labels of .* got 2 images and 1 labels"),
        ({"images": IMAGES[0], "labels": LABELS}, r"got shapes \(3, 4\) and \(2,\)"),
        ({"images": IMAGES, "labels": np.int64(3)}, r"got shapes \(2, 3, 4\) and \(\)"),
        ({"images": IMAGES, "labels": np.array(["a", None], object)}, "labels of .* cannot be read: .* numbers"),
        ({}, r"must hold images and labels, .* got \[\]"),
    ],
)
def test_npz_refuses_what_is_no_data_set(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        npz_dataset(tmp_path / "a.npz")


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04 nothing more"])
def test_npz_refuses_other_files(tmp_path, data):
    with pytest.raises(ValueError, match=r"a\.npz must be an npz archive: "):
        npz_dataset(write(tmp_path / "a.npz", data))


def test_npz_refuses_a_single_array(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(ValueError, match="got a single array"):
        npz_dataset(tmp_path / "a.npy")


def test_npz_refuses_a_damaged_archive(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(IMAGES.tobytes())] ^= 0xFF
    with pytest.raises(ValueError, match=r"images of .*a.npz cannot be read: Bad CRC"):
        npz_dataset(write(tmp_path / "a.npz", bytes(data)))


@pytest.mark.parametrize("read", [npz_dataset, read_idx])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(ValueError, match=r"path must name a file, got '.*nowhere'"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_become_a_data_set(tmp_path, pack):
    images = write(tmp_path / "images", pack(idx_bytes(IMAGES)))
    dataset = idx_dataset(images, write(tmp_path / "labels", pack(idx_bytes(LABELS))))
    np.testing.assert_array_equal(dataset.images, IMAGES[..., None])
    np.testing.assert_array_equal(dataset.labels, LABELS)


@pytest.mark.parametrize(("code", "dtype"), [(0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")])
def test_idx_reads_every_type(tmp_path, code, dtype):
    array = np.array([[-3, 5]], dtype)
    read = read_idx(write(tmp_path / "a", idx_bytes(array, code)))
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(read, array)


def test_idx_arrays_can_be_written_to(tmp_path):
    assert read_idx(write(tmp_path / "a", idx_bytes(LABELS))).flags.writeable


@given(st.integers(0, len(idx_bytes(IMAGES)) - 1), st.sampled_from([bytes, gzip.compress]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_idx_cut_short_is_refused(tmp_path, length, pack):
    with pytest.raises(ValueError, match=r"a (must|is cut short)"):
        read_idx(write(tmp_path / "a", pack(idx_bytes(IMAGES)[:length])))


@given(st.integers(3, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_idx_with_a_cut_gzip_is_refused(tmp_path, length):
    with pytest.raises(ValueError, match="a is cut short or broken"):
        read_idx(write(tmp_path / "a", gzip.compress(idx_bytes(IMAGES))[:length]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG....", r"must be an idx file, got the first bytes b'\\x89PNG'"),
        (bytes([0, 0, 0x07, 1, 0, 0, 0, 0]), "must be an idx file"),
        (bytes([0, 0, 8, 3, 0, 0]), "is cut short or broken: its header announces 3 axes"),
        (idx_bytes(IMAGES)[:-1], r"must hold 24 bytes for the shape \(2, 3, 4\) in its header, got 23"),
        (idx_bytes(IMAGES) + b"!", "must hold 24 bytes .* got 25"),
        (bytes([0, 0, 8, 2]) + b"\xff" * 8, "must hold 18446744065119617025 bytes .* got 0"),
    ],
)
def test_idx_says_what_is_wrong(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        read_idx(write(tmp_path / "a", data))


def test_idx_files_must_fit(tmp_path):
    with pytest.raises(ValueError, match="got 2 images and 1 labels"):
        idx_dataset(write(tmp_path / "a", idx_bytes(IMAGES)), write(tmp_path / "b", idx_bytes(LABELS[:1])))
