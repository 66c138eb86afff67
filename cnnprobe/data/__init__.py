"""Images and labels: bundled, rendered or from the user's files; and how a run draws them."""

from cnnprobe.data.augment import (
    compose,
    gaussian_noise,
    mixup,
    mixup_batches,
    random_crop,
    random_cutout,
    random_flip,
    random_rotation,
    random_shift,
    random_zoom,
)
from cnnprobe.data.batching import epoch_batches, num_batches, reshuffle
from cnnprobe.data.builders import register_datasets
from cnnprobe.data.bundled import ImageSet, fashion_mnist, textures
from cnnprobe.data.cells import blood_cells
from cnnprobe.data.files import idx_dataset, npz_dataset, read_idx
from cnnprobe.data.folders import FolderImages, image_folder
from cnnprobe.data.named import DATA_SETS, load
from cnnprobe.data.sampling import num_examples, sample, split, take, to_dataset
from cnnprobe.data.streaming import grain_batches
