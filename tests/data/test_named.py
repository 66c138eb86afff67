import numpy as np
import pytest

from cnnprobe.data.named import DATA_SETS, load


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_comes_in_the_asked_number(name):
    train, valid, class_names = load(name, num_train=40, num_valid=20)
    assert (len(train.images), len(train.labels), len(valid.labels)) == (40, 40, 20)
    assert set(train.labels) == set(range(len(class_names)))


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize(("raw", "dtype"), [(False, np.float32), (True, np.uint8)])
def test_every_data_set_is_scaled_unless_raw(name, raw, dtype):
    train, _, _ = load(name, num_train=12, num_valid=4, raw=raw)
    assert train.images.dtype == dtype
    assert 1 >= train.images.max() / (255 if raw else 1) > 0.5


@pytest.mark.parametrize("name", DATA_SETS)
def test_no_image_is_in_both_parts(name):
    train, valid, _ = load(name, num_train=60, num_valid=60)
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in valid.images}


def test_options_reach_the_data_set():
    assert load("blood_cells", num_train=4, num_valid=4, size=32).train.images.shape == (4, 32, 32, 1)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError, match="name must be one of blood_cells, fashion_mnist, textures, got 'mnist'"):
        load("mnist")


def test_an_unknown_option_lists_what_there_is():
    with pytest.raises(ValueError, match="options of fashion_mnist must be among num_train, num_valid, raw, got size"):
        load("fashion_mnist", size=32)
