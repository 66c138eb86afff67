"""Runs that are killed at random moments lose nothing and mix nothing up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUM_TRAININGS, NUM_WRITERS, NUM_BENCHMARKS, NUM_QUESTIONS = 4, 50, 8, 1
KILLS = (NUM_TRAININGS, NUM_WRITERS, NUM_BENCHMARKS, NUM_QUESTIONS)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")]


@pytest.fixture(scope="module")
def result():
    """What the script found in a process of its own, which no test has made multithreaded."""
    command = [sys.executable, "-m", "tests.training.killing", *map(str, KILLS)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["same parameters", "same log", "steps once in every log"])
def test_a_training_killed_again_and_again_ends_as_one_that_was_not(result, what):
    assert result["training"]["kills"] == NUM_TRAININGS
    assert result["training"][what]


def test_no_file_is_read_half_written_and_no_row_is_lost(result):
    found = result["writers"]
    assert (found["kills"], found["broken"], found["gaps"]) == (NUM_WRITERS, 0, 0)
    assert found["rows"] > NUM_WRITERS


def test_a_benchmark_killed_again_and_again_has_every_case_once(result):
    found = result["benchmark"]
    assert found["every case once"]
    assert found["rows after each"] == sorted(found["rows after each"])


@pytest.mark.parametrize("question", ["diagnose", "repair"])
def test_a_doctor_killed_again_and_again_finds_what_one_does_that_was_not(result, question):
    assert result[question] == {"kills": NUM_QUESTIONS, "same": True, "found": True}


def test_a_killed_run_gives_its_folder_back(result):
    assert f"where process {result['holder']['holder']} runs" in result["holder"]["told"]
