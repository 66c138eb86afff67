"""`--config=FILE.py`: values for the flags of any script from a file, and the record of what a script ran with.

The file holds a function `get_config()` that returns an `ml_collections.ConfigDict`, or a dict, with names of flags. It
is run: it can do whatever its code does. `--config=FILE.py:TEXT` calls `get_config(TEXT)`. A flag on the command line
wins over the file.
"""

import difflib
import json
import os
import platform
import runpy
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from absl import flags

flags.DEFINE_string(
    "config", None, "FILE.py, or FILE.py:TEXT: a file whose get_config() or get_config(TEXT) gives values for flags."
)

NOT_OF_A_RUN = ("config", "coordinator", "process_id")  # flags that say where values come from, or who is who
PACKAGES = ("cnnprobe", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
WIDEST = 110  # columns of what is printed
KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {  # by what absl calls the type of a flag
    "bool": ((bool,), "True or False"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "string": ((str,), "text"),
    "string enum": ((str,), "text"),
    "comma separated list of strings": ((list, tuple), "a list of texts"),
    "multi string": ((list, tuple), "a list of texts"),
    "multi string enum": ((list, tuple), "a list of texts"),
}


def register() -> None:
    """Makes `--config` one of the flags that `--help` of the script shows."""
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["config"])


def script_flags() -> dict[str, flags.Flag]:
    """The flags of the script that runs, by name, as its `--help` lists them."""
    own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    return {flag.name: flag for flag in sorted(own, key=lambda flag: flag.name) if flag.name not in NOT_OF_A_RUN}


def apply_config() -> None:
    """Gives the flags that were not typed the values of `--config`, if there is one.

    Raises:
      ValueError: the file cannot be read, names a flag that the script lacks, or holds a value of another type.
      absl.flags.Error: a value is out of range, or does not go with another one.
    """
    place = flags.FLAGS["config"].value
    if place is None:
        return
    known = script_flags()
    for name, value in load_config(place).items():
        check_name(name, list(known))
        flag = known[name]
        check_type(name, value, flag)
        if value is not None and not flag.present:
            flag.parse(list(value) if isinstance(value, tuple) else value)
            flag.using_default_value = False
    flags.FLAGS.validate_all_flags()


def load_config(place: str) -> dict[str, Any]:
    """What `get_config` of a file returns: `FILE.py`, or `FILE.py:TEXT` for an argument.

    Raises:
      ValueError: there is no such file or function, it fails, or it returns something else; the message says why.
    """
    path, colon, argument = place.partition(":")
    if not Path(path).is_file():
        raise ValueError(f"config must name a file FILE.py or FILE.py:TEXT, got {place!r}.")
    try:
        get_config = runpy.run_path(path).get("get_config")
        if not callable(get_config):
            raise ValueError("it holds no function get_config")
        config = get_config(argument) if colon else get_config()
        values = config.to_dict() if hasattr(config, "to_dict") else config
        if not isinstance(values, Mapping):
            raise ValueError(f"get_config must return a ConfigDict or a dict, got {type(values).__name__}")
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "ml_collections":
            raise ValueError(f'{path} needs ml_collections: pip install "cnnprobe[config]"') from error
        raise ValueError(f"{path} cannot be read: {error}.") from error
    except Exception as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}: {error}.") from error
    return {str(name): value for name, value in values.items()}


def check_name(name: str, known: list[str]) -> None:
    """Raises `ValueError` unless the script has such a flag; the message names those that are spelt alike."""
    if name not in known:
        near = difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
        raise ValueError(f"config must name flags of this script, got {name!r}; {hint}")


def check_type(name: str, value: Any, flag: flags.Flag) -> None:
    """Raises `ValueError` unless a value is of the type of its flag; None is, where the flag can be left unset."""
    types, words = KINDS[flag.flag_type()]
    if value is None and flag.default is None:
        return
    is_bool = isinstance(value, bool)
    fits = isinstance(value, types) and is_bool == (bool in types)
    if isinstance(value, list | tuple):
        fits = fits and all(isinstance(item, str) for item in value)
    if not fits:
        raise ValueError(f"config must hold {words} for {name}, got {value!r}.")


def announce(directory: str | os.PathLike[str] | None, *, name: str = "config.json") -> None:
    """Prints what the script runs with, unless only its result is wanted, and stores it in its folder, if it has one.

    Raises:
      OSError: the folder cannot be written.
    """
    own = script_flags()
    if own and not any(own[silent].value for silent in ("json", "quiet") if silent in own):
        print(configuration_text(own))
    if directory is not None:
        write_config(directory, name=name)


def configuration_text(own: Mapping[str, flags.Flag]) -> str:
    """The values of all flags that are set, as they would be typed."""
    words = [shlex.quote(word) for flag in own.values() for word in flag.serialize().splitlines()]
    width = min(shutil.get_terminal_size((100, 24)).columns, WIDEST)
    return textwrap.fill(
        " ".join(words),
        width,
        initial_indent="configuration: ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def write_config(directory: str | os.PathLike[str], *, name: str = "config.json") -> Path:
    """Stores the values of all flags, and what they ran in, as one JSON file that is replaced as a whole.

    Raises:
      OSError: the folder cannot be written.
    """
    from cnnprobe.reporting.jsonfile import to_json, write_atomically

    content = {
        "script": Path(sys.argv[0]).stem,
        "config": flags.FLAGS["config"].value,
        "flags": {name: flag.value for name, flag in script_flags().items()},
        **environment(),
    }
    return write_atomically(Path(directory) / name, json.dumps(to_json(content), indent=1, allow_nan=False) + "\n")


def environment() -> dict[str, Any]:
    """What a run depends on besides its flags: versions, and the devices that jax has."""
    import jax

    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: installed_version(package) for package in PACKAGES},
        "device": {"kind": devices[0].device_kind, "platform": devices[0].platform, "num_devices": len(devices)},
    }


def installed_version(package: str) -> str | None:
    """The installed version; None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
