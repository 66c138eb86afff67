"""Files that are broken, cut short or made to harm: read right, or refused in words."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnprobe as cp
from cnnprobe.data.files import npz_dataset, read_idx

NUM_TRIES = 300
IMAGES, LABELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([1, 0])


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz_of(path, images):
    """An archive whose images are these bytes, with sums that are right."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", npy_bytes(LABELS))
    return path


@st.composite
def damaged(draw, whole):
    """Bytes with some of them changed, cut off or put in twice."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data) - 1)) if data else 0
        kind = draw(st.sampled_from(("change", "cut", "double", "insert")))
        if kind == "change" and data:
            data[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place:]
        elif kind == "double":
            data += data[place:]
        else:
            data[place:place] = draw(st.binary(max_size=9))
    return bytes(data)


def is_refused_in_words(read, path):
    """Whether a reader refuses; anything but a ValueError that names the file is an error of the test."""
    try:
        read(path)
    except ValueError as error:
        if path.name not in str(error):
            raise
        return True
    return False


@pytest.mark.parametrize("where", ["archive", "array"])
def test_damaged_archives(tmp_path, where):
    whole = npy_bytes(IMAGES) if where == "array" else npz_of(tmp_path / "whole.npz", npy_bytes(IMAGES)).read_bytes()
    refused = []

    @settings(max_examples=NUM_TRIES)
    @given(data=damaged(whole))
    def search(data):
        path = tmp_path / "a.npz"
        path.write_bytes(data) if where == "archive" else npz_of(path, data)
        refused.append(is_refused_in_words(npz_dataset, path))

    search()
    print(f"{where}: {len(refused)} tries, {sum(refused)} refused")
    assert any(refused)


@settings(max_examples=NUM_TRIES)
@given(data=damaged(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + IMAGES.tobytes()))
def test_damaged_idx_files(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.idx"
    path.write_bytes(data)
    is_refused_in_words(read_idx, path)


LINES = [{"kind": "step", "step": i, "loss": 1.0, "accuracy": 0.5, "label_counts": [3, 5]} for i in range(8)]
LOG = "\n".join(map(json.dumps, LINES)).encode()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
FIELDS = ("kind", "loss", "accuracy", "prediction_counts", "label_counts", "probes", "train", "valid", "num_steps")
ROWS = st.lists(st.dictionaries(st.sampled_from((*FIELDS, "parameters", "sizes", "axes")), VALUES), max_size=8)


@settings(max_examples=NUM_TRIES)
@given(data=st.one_of(damaged(LOG), ROWS.map(lambda rows: LOG + b"\n" + "\n".join(map(json.dumps, rows)).encode())))
def test_damaged_logs(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    path.write_bytes(data)
    is_refused_in_words(cp.diagnose_run, path)


class Harm:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_nothing_is_ever_unpickled(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arrays = {"images": IMAGES, "labels": LABELS} | {name: np.array([Harm(), None], object)}
    np.savez("a.npz", **arrays)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Harm()))
    for file in ("a.npz", "b.npz"):
        assert is_refused_in_words(npz_dataset, tmp_path / file)
    assert not (tmp_path / "harm").exists()


def test_a_header_that_announces_more_than_there_is_fills_no_memory(tmp_path):
    data = npy_bytes(IMAGES).replace(b"(2, 3, 4)", b"(2000000000, 3000000, 4)".ljust(9))
    assert is_refused_in_words(npz_dataset, npz_of(tmp_path / "a.npz", data))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_among_the_images_is_skipped(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / kind / "0.png")
    os.mkfifo(tmp_path / "cat" / "1.png")
    with pytest.warns(UserWarning, match="it is no regular file"):
        assert len(cp.image_folder(tmp_path, valid_share=0.0).skipped) == 1
