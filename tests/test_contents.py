import subprocess
import sys
from importlib import import_module

import pytest

import cnnprobe
from cnnprobe import __main__ as command
from cnnprobe.contents import chapters, find_definition, summary

ENTRIES = [entry for chapter in chapters() for entry in chapter.entries]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_public_name_is_there_and_says_what_it_is(entry):
    assert getattr(cnnprobe, entry.name) is not None
    assert summary(entry).endswith((".", "`", ":"))


def test_names_are_listed_once():
    assert sorted(dir(cnnprobe)) == sorted({entry.name for entry in ENTRIES})


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'diagnos'"):
        import_module("cnnprobe").__getattr__("diagnos")


def test_a_name_that_a_module_does_not_define_is_refused():
    with pytest.raises(LookupError, match="must define nothing"):
        find_definition("cnnprobe.types", "nothing")


def test_the_overview_names_commands_and_functions_without_jax():
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cnnprobe"], capture_output=True, text=True, timeout=60, check=True
    )
    assert all(f"  {name} " in shown.stdout for name in (*command.COMMANDS, "cp.diagnose", "cp.tap"))
    assert not [line for line in shown.stderr.splitlines() if line.endswith((" jax", " numpy", " rich"))]


def test_a_command_is_the_script():
    shown = subprocess.run(
        [sys.executable, "-m", "cnnprobe", "diagnose", "--help"], capture_output=True, text=True, timeout=60
    )
    assert "Says why a CNN does not learn" in shown.stdout
    assert "--budget_seconds" in shown.stdout


def test_an_unknown_command_is_bad_input(capsys):
    assert command.main(["diagnos"]) == 2
    assert capsys.readouterr().err == (
        f"error: the command must be one of {', '.join(command.COMMANDS)}, got 'diagnos'.\n"
    )
