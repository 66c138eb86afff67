"""Every Python snippet of the documentation runs, page by page, from top to bottom, on a hundred images.

A diagnosis takes half a minute, so its place is taken by a check of the problem, which is traced through one training
step, and by a stored answer. `make demo` runs the diagnosis of the tour in full.
"""

import inspect
import json
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

import cnnprobe as cp
from cnnprobe.data.batching import epoch_batches
from cnnprobe.doctor.repair import Repair
from cnnprobe.training.pipeline import prepare
from cnnprobe.training.step import init_state, make_train_step
from cnnprobe.training.validate import check_problem

ROOT = Path(__file__).parents[2]
YOURS = [ROOT / "README.md", ROOT / "docs" / "taps.md"]  # which speak of a program of the reader's
PAGES = [
    path for path in sorted((ROOT / "docs").rglob("*.md")) if path not in YOURS and "```python" in path.read_text()
]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
FINDING = cp.Finding(
    "inputs-not-scaled", "it", "cause", 1.0, cp.Evidence("", (), 1.0), lambda p: p, "", "", None, "", ()
)
ANSWER = cp.Diagnosis("faulty", "The inputs are not scaled.", (FINDING,), None, (), (), {}, (), 1.0)
ANSWERS = {"diagnose": ANSWER, "repair": Repair(None, (), ANSWER, "healthy"), "checklist": (), "baselines": {}}


def code_of(path):
    """The Python of a page or notebook, as one program with the lines where they stand in the page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    program, last = "", 0
    for block in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        if block[1] == "python":
            program += "\n" * text.count("\n", last, block.start(2)) + block[2]
            last = block.end(2)
    return program


def run_page(path, **given):
    """Runs all of a page's code in one namespace."""
    namespace = {"__name__": "page", **given}
    exec(compile(code_of(path), str(path), "exec"), namespace)
    return namespace


def trace(problem):
    """Raises whatever the problem's first training step would."""
    check_problem(problem)
    first = next(iter(epoch_batches(problem, 0)))
    batch = prepare(problem, first, jax.random.key(0), train=True)
    state = init_state(problem, jax.random.key(0), batch.images)
    step = make_train_step(problem.model, problem.loss, problem.optimizer, num_classes=10)
    jax.eval_shape(step, state, batch.images, batch.labels)


def stand_in(name):
    """A doctor's function that takes the same arguments, checks the problem, and gives a stored answer."""
    signature = inspect.signature(getattr(cp, name))

    def answer(*args, **kwargs):
        trace(signature.bind(*args, **kwargs).arguments["problem"])
        return ANSWERS[name]

    return answer


@pytest.fixture
def compiled_fast():
    """Programs that run a few times are compiled fast rather than well."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def traced(compiled_fast, monkeypatch, tmp_path):
    """Small data, a folder of its own, and a doctor that only traces the problem."""
    load = cp.load
    monkeypatch.setattr(cp, "load", lambda name, **options: load(name, num_train=100, num_valid=50, **options))
    for name in ANSWERS:
        monkeypatch.setattr(cp, name, stand_in(name))
    monkeypatch.chdir(tmp_path)


def my_network():
    """What the README calls yours."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(10)(x.reshape(len(x), -1))

    return Net()


def mine():
    """Everything that the README takes as given."""
    data, net = cp.load("fashion_mnist"), my_network()
    batch = data.train.images[:8], data.train.labels[:8]

    def loss(logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def loss_fn(params, batch):
        logits = net.apply(params, batch[0])
        return loss(logits, batch[1]), logits

    return {
        "my_module": net,
        "my_loss": loss,
        "my_preprocess": np.asarray,
        "loss_fn": loss_fn,
        "batch": batch,
        "images": data.train.images,
        "labels": data.train.labels,
        "valid_images": data.valid.images,
        "valid_labels": data.valid.labels,
        "params": net.init(jax.random.key(0), batch[0]),
        "cp": cp,
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_run(path, traced):
    run_page(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, traced):
    run_page(path)


@pytest.mark.parametrize("path", YOURS, ids=lambda path: path.stem)
def test_pages_that_speak_of_your_program_run(path, traced):
    Path("run").mkdir()
    Path("run/readings.jsonl").write_text('{"loss": 2.3}\n{"loss": 2.2}\n')
    run_page(path, **mine())


def test_a_snippet_that_is_wrong_fails(traced, tmp_path):
    wrong = tmp_path / "page.md"
    wrong.write_text("# Page\n\n```python\nimport cnnprobe as cp\n\ncp.no_such_name\n```\n")
    with pytest.raises(AttributeError, match="no_such_name"):
        run_page(wrong)
