import sys

import numpy as np
import pytest

from cnnprobe.data.builders import register_datasets
from cnnprobe.data.named import DATA_SETS, load
from cnnprobe.data.prepared import prepared_set

NAMES = sorted(DATA_SETS)


@pytest.fixture(scope="module")
def tfds():
    """tensorflow-datasets, which knows the bundled sets."""
    found = pytest.importorskip("tensorflow_datasets")
    register_datasets()
    return found


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Where they are prepared."""
    return tmp_path_factory.mktemp("shelf")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_is_what_was_bundled(tfds, shelf, name):
    parts = tfds.data_source(f"cnnprobe_{name}/few", data_dir=shelf)
    source = load(name, num_train=60, num_valid=30, raw=True)
    for part, expected in (("train", source.train), ("validation", source.valid)):
        np.testing.assert_array_equal([each["image"] for each in parts[part]], expected.images)
        np.testing.assert_array_equal([each["label"] for each in parts[part]], expected.labels)


def test_a_prepared_set_is_read_by_name(tfds, shelf, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(shelf))
    tfds.data_source("cnnprobe_textures/few", data_dir=shelf)
    train, valid, class_names = prepared_set("cnnprobe_textures/few", size=64, channels=1, raw=True)
    assert (train.images.shape, valid.images.shape) == ((60, 64, 64, 1), (30, 64, 64, 1))
    assert class_names == ("brick", "grass", "gravel")


def test_an_interrupted_preparation_leaves_no_data_set(tfds, tmp_path, monkeypatch):
    builder = tfds.builder("cnnprobe_textures/few", data_dir=tmp_path)
    monkeypatch.setattr("cnnprobe.data.builders.load", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        builder.download_and_prepare()
    assert not list(tmp_path.rglob("dataset_info.json"))


@pytest.mark.parametrize("file_format", ["parquet", "tfrecord"])
def test_other_formats_are_refused(tfds, tmp_path, file_format):
    with pytest.raises(ValueError, match=f"file_format must be array_record, got '{file_format}'"):
        tfds.builder("cnnprobe_textures", data_dir=tmp_path, file_format=file_format)


def test_they_are_registered_once(tfds):
    assert register_datasets() == register_datasets() == tuple(f"cnnprobe_{name}" for name in DATA_SETS)


def test_tensorflow_datasets_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r'pip install "cnnprobe\[tfds\]"'):
        register_datasets.__wrapped__()
