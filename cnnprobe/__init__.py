"""cnnprobe: why is my CNN not learning, and what will fix it?

Taps and probes read layers, gradients, updates and predictions of any JAX program, unedited. The doctor takes a
training problem as a value and returns ranked causes, each with its evidence, a remedy that is a function, and the
measured gain of that remedy. This page is the table of contents.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cnnprobe.contents import chapters

if TYPE_CHECKING:
    # The reference cases, as problems.
    from cnnprobe import cases

    # Data to try things on, and readers for one's own.
    from cnnprobe.data import augment
    from cnnprobe.data.builders import register_datasets
    from cnnprobe.data.bundled import fashion_mnist, textures
    from cnnprobe.data.cells import blood_cells
    from cnnprobe.data.files import idx_dataset, npz_dataset
    from cnnprobe.data.folders import image_folder
    from cnnprobe.data.named import load
    from cnnprobe.data.prepared import prepared_set
    from cnnprobe.data.streaming import grain_batches

    # The doctor.
    from cnnprobe.doctor.baselines import baselines
    from cnnprobe.doctor.checklist import checklist
    from cnnprobe.doctor.diagnose import diagnose
    from cnnprobe.doctor.recorded import diagnose_run
    from cnnprobe.doctor.repair import repair

    # Models of other libraries, and small ones of our own.
    from cnnprobe.models.equinox import from_equinox
    from cnnprobe.models.haiku import from_haiku
    from cnnprobe.models.keras import from_keras
    from cnnprobe.models.keras_problem import problem_from_keras
    from cnnprobe.models.linen import from_linen
    from cnnprobe.models.networks import baseline_cnn, residual_cnn, small_cnn
    from cnnprobe.models.nnx import from_nnx

    # Probes: arrays in, a small record out.
    from cnnprobe.probes.activations import activation_stats, duplicate_units, effective_rank
    from cnnprobe.probes.collapse import batch_collapse, collapse_split
    from cnnprobe.probes.curvature import hessian_trace, hessian_vector_product, top_eigenvalue
    from cnnprobe.probes.fingerprint import loss_fingerprint
    from cnnprobe.probes.gradients import gradient_cosine, gradient_noise_scale, gradient_stats
    from cnnprobe.probes.inputs import image_stats, knn_consistency, random_features, ridge_accuracy, split_overlap
    from cnnprobe.probes.labels import batch_label_entropy, class_ids, label_stats
    from cnnprobe.probes.losses import name_loss
    from cnnprobe.probes.modes import cross_example_jacobian, mask_variance_ratio, mode_gap, statistics_drift
    from cnnprobe.probes.optimizers import gradient_probe, probe_readings, update_probe, update_stats
    from cnnprobe.probes.predictions import balanced_accuracy, input_sensitivity, prediction_stats
    from cnnprobe.probes.scaling import expected_accuracy
    from cnnprobe.probes.updates import log10_update_ratio, moved_share, sign_update_share, update_cosine, update_ratio

    # Reports.
    from cnnprobe.reporting.console import print_diagnosis
    from cnnprobe.reporting.effects import print_checklist, write_checklist
    from cnnprobe.reporting.rate_plots import write_learning_rate_range
    from cnnprobe.reporting.report import write_report
    from cnnprobe.reporting.table import table

    # Writers: the numbers of a run where other programs look for them.
    from cnnprobe.reporting.tensorboard import tensorboard_writer
    from cnnprobe.reporting.wandb import wandb_writer
    from cnnprobe.reporting.writers import csv_writer, jsonl_writer

    # Taps: readings of every layer of an unedited function; its structure, and surgery on it.
    from cnnprobe.tracing.compare import compare_models
    from cnnprobe.tracing.graph import model_graph
    from cnnprobe.tracing.normalising import insert_normalisation
    from cnnprobe.tracing.readings import layer_stats, merge_readings
    from cnnprobe.tracing.surgery import (
        change_last_inputs,
        drop_output_activation,
        first_layer_inputs,
        insert_activation,
        keep_gradients,
        last_layer_inputs,
        log_output_softmax,
        replace_activation,
        set_dropout_rate,
    )
    from cnnprobe.tracing.taps import tap, value_and_grad

    # Training.
    from cnnprobe.training.evaluate import evaluate
    from cnnprobe.training.fit import fit
    from cnnprobe.training.folds import fold_splits, train_folds
    from cnnprobe.training.rates import learning_rate_range
    from cnnprobe.training.writing import to_all
    from cnnprobe.trees import per_layer

    # A problem, its parts, and what the doctor says of it.
    from cnnprobe.types import (
        Batch,
        Dataset,
        Diagnosis,
        Evidence,
        Finding,
        History,
        Model,
        Problem,
        Reading,
        Source,
        Trial,
        Writer,
    )

_ENTRIES = {entry.name: entry for chapter in chapters() for entry in chapter.entries}
__all__ = list(_ENTRIES)


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used: `python -m cnnprobe` and `--help` need no jax."""
    if name not in _ENTRIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    entry = _ENTRIES[name]
    module = import_module(entry.module)
    globals()[name] = module if entry.is_module else getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    """The public names."""
    return __all__
