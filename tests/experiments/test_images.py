import numpy as np
import pytest

from experiments.images import built_in_images, folder_images, npz_images

PIXELS = np.zeros((20, 8, 8), np.uint8)
LABELS = np.arange(20) % 4


@pytest.mark.parametrize(
    ("name", "num_classes", "size"), [("fashion_mnist", 10, 28), ("textures", 3, 32), ("blood_cells", 4, 48)]
)
def test_built_in_images(name, num_classes, size):
    train, valid, class_names = built_in_images(name, num_images=60)
    assert train.images.shape == (60, size, size, 1)
    assert len(valid.images) == 20
    assert len(class_names) == num_classes == len(np.unique(train.labels))


def test_training_and_validation_cells_differ():
    train, valid, _ = built_in_images("blood_cells", num_images=12)
    assert not any(np.array_equal(a, b) for a in train.images for b in valid.images)


def test_npz_without_validation_is_split(tmp_path):
    np.savez(tmp_path / "mine.npz", images=PIXELS, labels=LABELS)
    train, valid, class_names = npz_images(str(tmp_path / "mine.npz"))
    assert (len(train.images), len(valid.images)) == (16, 4)
    assert class_names == ("0", "1", "2", "3")


def test_npz_with_one_hot_labels_and_a_validation_part(tmp_path):
    parts = {"x_train": PIXELS, "y_train": np.eye(4)[LABELS], "x_test": PIXELS[:5], "y_test": np.eye(4)[LABELS[:5]]}
    np.savez(tmp_path / "mine.npz", **parts)
    train, valid, _ = npz_images(str(tmp_path / "mine.npz"))
    np.testing.assert_array_equal(train.labels, LABELS)
    assert len(valid.images) == 5


@pytest.mark.parametrize("labels", [LABELS - 1, LABELS / 3])
def test_npz_with_labels_that_are_no_classes(labels, tmp_path):
    np.savez(tmp_path / "mine.npz", images=PIXELS, labels=labels)
    with pytest.raises(
        ValueError, match=r"mine\.npz must hold labels that are whole numbers from 0 on, or one-hot, got"
    ):
        npz_images(str(tmp_path / "mine.npz"))


def test_folder_is_resized(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(5):
            image.fromarray(np.full((20, 30, 3), 40 * index, np.uint8)).save(tmp_path / name / f"{index}.png")
    train, _, class_names = folder_images(str(tmp_path), size=16)
    assert train.images.shape == (8, 16, 16, 3)
    assert class_names == ("cat", "dog")
