import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import calibrate, config_flags, gallery, output_flags, problem_flags, train

ROOT = Path(__file__).parents[2]
SCRIPT = "a_script_of_this_test"
OWN = (
    "dataset",
    "npz",
    "images",
    "learning_rate",
    "batch_size",
    "num_images",
    "model",
    "log",
    "resume",
    "case_id",
    "quiet",
)


@pytest.fixture
def script(monkeypatch):
    """A script with some flags."""
    assert all((calibrate, gallery, output_flags, problem_flags, train))  # which define them
    monkeypatch.setattr(sys, "argv", [SCRIPT])
    for name in OWN:
        flags.FLAGS.register_key_flag_for_module(SCRIPT, flags.FLAGS[name])
    with flagsaver.flagsaver():
        yield


@pytest.fixture
def parse(script, tmp_path):
    """`parse(body, *arguments)` gives the flags after a config file whose `get_config` has such a body."""

    def parse(body, *arguments, place="", head=""):
        path = tmp_path / "config.py"
        path.write_text(f"{head}\ndef get_config({'text' if place else ''}):\n    {body}\n")
        flags.FLAGS([SCRIPT, f"--config={path}{place}", *arguments])
        config_flags.apply_config()
        return {name: flags.FLAGS[name].value for name in OWN}

    return parse


def call(*arguments):
    """A script as a user calls it."""
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_values_of_the_file_are_those_of_the_flags(parse):
    body = "return {'batch_size': 7, 'learning_rate': 1, 'log': ['csv', 'jsonl'], 'resume': False, 'num_images': None}"
    found = parse(body)
    assert (found["batch_size"], found["learning_rate"], found["log"]) == (7, 1.0, ["csv", "jsonl"])
    assert (found["resume"], found["num_images"], found["dataset"]) == (False, None, "fashion_mnist")


def test_the_command_line_wins(parse):
    found = parse("return {'batch_size': 7, 'model': 'baseline_cnn'}", "--batch_size=9")
    assert (found["batch_size"], found["model"]) == (9, "baseline_cnn")


def test_a_config_dict_is_read(parse):
    pytest.importorskip("ml_collections")
    head = "from ml_collections import config_dict"
    body = "c = config_dict.ConfigDict({'batch_size': 7}); c.num_images = 2 * c.get_ref('batch_size'); return c"
    found = parse(body, head=head)
    assert (found["batch_size"], found["num_images"]) == (7, 14)


def test_the_text_behind_the_colon_is_the_argument(parse):
    assert parse("return {'dataset': text}", place=":textures:1")["dataset"] == "textures:1"


def test_a_list_of_several_choices_is_read(parse):
    assert parse("return {'case_id': ('blood_cells', 'checklist')}")["case_id"] == ["blood_cells", "checklist"]


def test_what_the_file_gives_counts_as_given(parse):
    parse("return {'num_images': 50}")
    assert problem_flags.given(["num_images", "dataset"]) == {"num_images": 50}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return {'learning_rat': 1}",
            "must name flags of this script, got 'learning_rat'; did you mean learning_rate?",
        ),
        ("return {'config': 'x'}", "must name flags of this script, got 'config'; there are batch_size, case_id,"),
        ("return {'xyzzy': 1}", "got 'xyzzy'; there are batch_size, case_id, dataset"),
        ("return {'learning_rate': '0.1'}", "config must hold a number for learning_rate, got '0.1'"),
        ("return {'learning_rate': True}", "config must hold a number for learning_rate, got True"),
        ("return {'batch_size': 7.0}", "config must hold a whole number for batch_size, got 7.0"),
        ("return {'batch_size': None}", "config must hold a whole number for batch_size, got None"),
        ("return {'resume': 1}", "config must hold True or False for resume, got 1"),
        ("return {'log': 'csv'}", "config must hold a list of texts for log, got 'csv'"),
        ("return {'log': [1]}", r"config must hold a list of texts for log, got \[1\]"),
        ("return {'dataset': {'name': 'x'}}", "config must hold text for dataset, got {'name': 'x'}"),
        ("return {'learning_rate': -1.0}", "flag --learning_rate=-1.0"),
        ("return {'model': 'vgg'}", "flag --model=vgg: value should be one of"),
        ("return {'images': 'a', 'npz': 'b'}", "At most one of"),
        ("return [1]", "get_config must return a ConfigDict or a dict, got list"),
        ("return 1 / 0", "config.py cannot be read: ZeroDivisionError: division by zero"),
        ("import no_such_module_of_test", "config.py cannot be read: No module named 'no_such_module_of_test'"),
    ],
)
def test_what_cannot_be_used_is_refused(parse, body, message):
    with pytest.raises((ValueError, flags.Error), match=message):
        parse(body)


def test_a_missing_extra_is_named(parse, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_collections", None)
    with pytest.raises(ValueError, match=r'config.py needs ml_collections: pip install "cnnprobe\[config\]"'):
        parse("import ml_collections")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("absent.py", "config must name a file FILE.py or FILE.py:TEXT, got 'absent.py'"),
        (f"{__file__}:text", "cannot be read: ValueError: it holds no function get_config"),
    ],
)
def test_a_file_without_a_config_is_refused(place, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config_flags.load_config(place)


def test_every_flag_of_every_script_has_a_type_that_a_file_can_hold():
    for path in (ROOT / "experiments").glob("*.py"):
        importlib.import_module(f"experiments.{path.stem}")
    own = [flag for name, flag in flags.FLAGS.flags_by_module_dict().items() if name.startswith("experiments")]
    assert {flag.flag_type() for group in own for flag in group} <= config_flags.KINDS.keys()


def test_what_is_printed_can_be_typed(parse):
    parse("return {'dataset': 'my own', 'resume': False, 'log': ['csv', 'jsonl']}")
    text = " ".join(config_flags.configuration_text(config_flags.script_flags()).split())
    assert text.startswith("configuration: --batch_size=64 ")
    assert "--dataset=my own'" in text.replace("'--dataset", "--dataset")
    assert "--log=csv,jsonl" in text
    assert "--noresume" in text
    assert "npz" not in text


@pytest.mark.parametrize(("arguments", "is_told"), [((), True), (("--quiet",), False)])
def test_nothing_is_printed_where_only_the_result_is_wanted(parse, capsys, arguments, is_told):
    parse("return {}", *arguments)
    config_flags.announce(None)
    assert capsys.readouterr().out.startswith("configuration: ") is is_told


def test_the_record_names_flags_versions_and_device(parse, tmp_path):
    import jax

    parse("return {'batch_size': 7}")
    content = json.loads(config_flags.write_config(tmp_path / "run").read_text())
    assert (content["flags"]["batch_size"], content["script"]) == (7, SCRIPT)
    assert content["config"] == str(tmp_path / "config.py")
    assert content["versions"]["jax"] == jax.__version__
    assert content["device"]["kind"] == jax.devices()[0].device_kind


def test_a_script_trains_as_its_config_says_and_keeps_it(tmp_path):
    (tmp_path / "config.py").write_text(
        "def get_config(n):\n    return dict(dataset='fashion_mnist', num_images=int(n))"
    )
    arguments = [f"--config={tmp_path / 'config.py'}:60", "--batch_size=30", "--num_epochs=1", "--log=csv,jsonl"]
    ended = call("experiments.train", f"--directory={tmp_path / 'run'}", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert "configuration: --batch_size=30" in ended.stdout
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["flags"]
    assert (kept["dataset"], kept["num_images"], kept["batch_size"]) == ("fashion_mnist", 60, 30)
    assert len((tmp_path / "run" / "scalars.csv").read_text().splitlines()) == 1 + 2 + 1


def test_a_config_that_is_refused_is_one_line_and_exit_code_2(tmp_path):
    (tmp_path / "config.py").write_text("def get_config():\n    return {'budget': 3.0}")
    ended = call("experiments.diagnose", f"--config={tmp_path / 'config.py'}")
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
    assert "got 'budget'; did you mean budget_seconds?" in ended.stderr


def test_help_names_the_flag():
    assert "--config" in call("experiments.demo", "--help").stdout
