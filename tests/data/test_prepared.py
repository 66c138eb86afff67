import numpy as np
import pytest
from PIL import Image

from cnnprobe.data.prepared import prepared_set

NUM = {"train": 12, "test": 6}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder of prepared data sets, with a small one in it: gray squares whose brightness is their class."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Squares(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["dark", "light"])
            features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {part: self._generate_examples(num) for part, num in NUM.items()}

        def _generate_examples(self, num):
            for index in range(num):
                yield index, {"image": Image.new("RGB", (8, 6), 3 * (200 * (index % 2),)), "label": index % 2}

    folder = tmp_path_factory.mktemp("prepared")
    Squares(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def on_shelf(shelf, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(shelf))


def test_prepared_images_come_resized_with_their_classes(on_shelf):
    train, valid, class_names = prepared_set("squares", size=4, raw=True)
    assert (train.images.shape, valid.images.shape, class_names) == ((12, 4, 4, 3), (6, 4, 4, 3), ("dark", "light"))
    np.testing.assert_array_equal(train.images[:, 0, 0, 0], 200 * train.labels)


def test_fewer_images_can_be_drawn_gray_and_scaled(on_shelf):
    train, valid, _ = prepared_set("squares", size=4, channels=1, num_train=6)
    assert (train.images.shape, valid.images.shape) == ((6, 4, 4, 1), (2, 4, 4, 1))
    assert set(train.images.ravel()) <= {np.float32(0), np.float32(200 / 255)}


@pytest.mark.parametrize("name", ["mnist", "../mnist", "imagenette/160px-v2"])
def test_what_is_not_prepared_is_told_at_once(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"dataset must be one of blood_cells, .* got '.*', .*download_and_prepare\(\)"
    ):
        prepared_set(name, size=32)


@pytest.mark.parametrize(
    ("choices", "message"), [({"size": 0}, "size must be"), ({"num_train": 0}, "num_train must be")]
)
def test_bad_choices_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        prepared_set("mnist", **{"size": 32, **choices})
