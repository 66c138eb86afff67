"""What cheap rules reach on the user's own images, to hold the network against."""

from cnnprobe.checks import check_integer
from cnnprobe.doctor.bench import make_bench
from cnnprobe.probes.baselines import Score, score_baselines
from cnnprobe.training.validate import check_problem
from cnnprobe.types import Problem


def baselines(problem: Problem) -> dict[str, Score]:
    """Scores a uniform guess, the majority class, nearest neighbours, linear pixels and random convolutions.

    They are fitted on up to 1000 training images as the model gets them, and scored on up to 1000 validation images. No
    network is trained.

    Raises:
      ValueError: the problem is malformed, has no validation data, or labels that are no classes.
    """
    check_problem(problem)
    bench = make_bench(problem)
    if not bench.has_valid:
        raise ValueError("problem.valid must hold images to score on, got None.")
    train, valid = bench.train, bench.valid
    if train.ids is None or valid.ids is None:
        raise ValueError(f"labels must tell the class of each image, got shape {train.labels.shape}.")
    check_integer("number of classes", bench.num_classes, 2)
    return score_baselines(train.images, train.ids, valid.images, valid.ids, num_classes=bench.num_classes)
