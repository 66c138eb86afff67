"""`python -m cnnprobe` lists what one can do; `python -m cnnprobe COMMAND` does it, with or without a checkout."""

import ast
import runpy
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from cnnprobe.contents import ROOT, chapters, summary

COMMANDS = (
    "demo",
    "diagnose",
    "train",
    "watch",
    "cross_validate",
    "learning_rate_range",
    "checklist",
    "reproduce_case",
)
INDENT = 26  # columns in front of what a name does
MOST_COLUMNS = 110


def main(arguments: Sequence[str]) -> int:
    """Prints the overview, or runs a command; 2 for one that there is not."""
    if not arguments or arguments[0] in ("help", "-h", "--help"):
        print("\n".join(overview()))
        return 0
    if arguments[0] not in COMMANDS:
        print(f"error: the command must be one of {', '.join(COMMANDS)}, got {arguments[0]!r}.", file=sys.stderr)
        return 2
    sys.argv[1:] = arguments[1:]
    runpy.run_module(f"experiments.{arguments[0]}", run_name="__main__", alter_sys=True)
    return 0


def overview() -> Iterator[str]:
    """The lines of the overview."""
    yield f"cnnprobe {version('cnnprobe')}: why is my CNN not learning, and what will fix it?\n"
    yield "Commands: python -m cnnprobe COMMAND; --help lists the flags of one."
    for command in COMMANDS:
        text = (ROOT / "experiments" / f"{command}.py").read_text(encoding="utf-8")
        yield _line(command, (ast.get_docstring(ast.parse(text)) or "").split("\n")[0])
    yield "\nIn Python: import cnnprobe as cp; help(cp.diagnose) tells more of a name."
    for chapter in chapters():
        yield f"\n{chapter.title}"
        yield from (_line(f"cp.{entry.name}", summary(entry)) for entry in chapter.entries)


def _line(name: str, text: str) -> str:
    """A name and what it does, as wide as the terminal."""
    width = min(shutil.get_terminal_size((100, 24)).columns, MOST_COLUMNS)
    head = f"  {name}".ljust(INDENT - 1) + " "
    return textwrap.fill(head + text, max(width, 2 * INDENT), subsequent_indent=" " * INDENT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
