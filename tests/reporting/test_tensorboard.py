import builtins
import io
import struct

import numpy as np
import pytest

from cnnprobe.reporting import tensorboard
from cnnprobe.reporting.tensorboard import as_picture, tensorboard_writer

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
crc = pytest.importorskip("tensorboardX.record_writer").masked_crc32c


def events(path):
    """The events of a file, each with its checksums looked at."""
    data = io.BytesIO(path.read_bytes())
    while length := data.read(8):
        assert struct.unpack("<I", data.read(4))[0] == crc(length)
        body = data.read(struct.unpack("<Q", length)[0])
        assert struct.unpack("<I", data.read(4))[0] == crc(body)
        yield event_pb2.Event.FromString(body)


def read(folder):
    """Step and value of all that TensorBoard shows of a folder: what a later beginning takes back is left out."""
    shown = []
    for path in sorted(folder.glob("*tfevents*")):
        for event in events(path):
            if event.session_log.status == event_pb2.SessionLog.START:
                shown = [(step, value) for step, value in shown if step < event.step]
            shown += [(event.step, value) for value in event.summary.value]
    return shown


@pytest.fixture
def writer(tmp_path):
    writer = tensorboard_writer(tmp_path)
    yield writer
    writer.close()


def test_scalars_can_be_read_while_the_run_goes_on(writer, tmp_path):
    for step in range(3):
        writer.write_scalars(step, {"loss": 1.5 - step, "dead_share/conv1": 0.25})
    shown = [(step, value.tag, value.simple_value) for step, value in read(tmp_path)]
    assert shown[::2] == [(0, "loss", 1.5), (1, "loss", 0.5), (2, "loss", -0.5)]
    assert shown[1] == (0, "dead_share/conv1", 0.25)


def test_numbers_that_are_not_finite_are_written_without_a_word(writer, tmp_path, caplog):
    writer.write_scalars(0, {"loss": float("nan"), "log10_update_ratio/conv1": -float("inf")})
    values = [value.simple_value for _, value in read(tmp_path)]
    np.testing.assert_array_equal(values, [np.nan, -np.inf])
    assert caplog.text == ""


def test_files_begin_as_tensorboard_wants_it(writer, tmp_path):
    writer.begin(4)
    first, second = events(next(tmp_path.glob("*tfevents*")))
    assert first.file_version == "brain.Event:2"
    assert (second.step, second.session_log.status) == (4, event_pb2.SessionLog.START)


def test_a_run_that_goes_on_shows_each_step_once(writer, tmp_path):
    for begin, end in ((0, 5), (3, 6), (3, 7)):  # within one second, so that the clock does not tell the files apart
        writer.begin(begin)
        for step in range(begin, end):
            writer.write_scalars(step, {"loss": begin + step / 10})
    shown = read(tmp_path)
    assert [step for step, _ in shown] == list(range(7))
    np.testing.assert_allclose([value.simple_value for _, value in shown][2:5], [0.2, 3.3, 3.4], rtol=1e-6)


def test_histograms_hold_every_finite_number(writer, tmp_path):
    numbers = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    numbers[0, 0] = np.nan
    writer.write_histograms(9, {"parameters/kernel": numbers, "none": np.array([np.inf])})
    ((step, value),) = read(tmp_path)
    assert (step, value.tag, value.histo.num) == (9, "parameters/kernel", 599)
    np.testing.assert_allclose(value.histo.sum, np.nansum(numbers), rtol=1e-4)


def test_images_are_pictures(writer, tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    writer.write_images(0, {"misclassified/3_as_5": pixels, "none": np.zeros(7)})
    ((_, value),) = read(tmp_path)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string))), pixels)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0.0, 0.5], [1.0, 0.2]]), [0, 128, 255, 51]),
        (np.array([[[-1.0], [1.0]], [[0.0], [np.nan]]]), [0, 255, 128, 128]),
        (np.array([[0, 10], [20, 40]]), [0, 64, 128, 255]),
        (np.ones((2, 2, 7)), [255] * 4),
        (np.zeros((2, 2, 1), np.uint8), [0] * 4),
    ],
)
def test_numbers_become_bytes(pixels, expected):
    picture = as_picture(pixels)
    assert (picture.dtype, picture.ravel().tolist()) == (np.uint8, expected)


def test_what_is_no_image_is_none():
    assert as_picture(np.zeros((2, 2, 2, 2))) is None
    assert as_picture(np.zeros((0, 2, 1))) is None


def test_a_full_disk_is_told_at_once(writer, tmp_path, monkeypatch):
    writer.write_scalars(0, {"loss": 1.0})
    full = tensorboard_writer(tmp_path)
    monkeypatch.setattr(tensorboard, "_open_events", lambda _: open("/dev/full", "ab", buffering=0))  # noqa: SIM115, PTH123
    with pytest.raises(OSError, match="/dev/full cannot be written: No space left on device"):
        full.begin(1)
    assert [step for step, _ in read(tmp_path)] == [0]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file must be a folder that can be written"):
        tensorboard_writer(tmp_path / "file").begin(0)


def test_a_missing_extra_is_named_before_anything_is_written(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("tensorboardX"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "cnnprobe\[tensorboard\]"'):
        tensorboard_writer(tmp_path)
