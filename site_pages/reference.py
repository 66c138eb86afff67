"""The reference of every public name, from the source: signatures and docstrings as they were typed."""

import ast
import re
import textwrap

from cnnprobe.contents import Chapter, Entry, chapters, find_definition, public_functions, summary

SECTION = re.compile(r"^(Args|Returns|Raises|References|Yields):$")
ENTRY = re.compile(r"^(\*{0,2}[A-Za-z_][\w., ]*): (.*)$")
PROMPT = ">>> "


def chapter_file(chapter: Chapter) -> str:
    """The file name of a chapter's page: its title up to the first punctuation, in small letters."""
    return re.sub(r"[^a-z]+", "-", re.split(r"[:,;]", chapter.title.lower())[0]).strip("-") + ".md"


def index_page() -> str:
    """Every public name with its first sentence, by chapter."""
    parts = ["# Reference\n\nEverything here is a name of `import cnnprobe as cp`."]
    for chapter in chapters():
        rows = [
            f"| [`{entry.name}`]({chapter_file(chapter)}#{entry.name}) | {_plain(summary(entry))} |"
            for entry in chapter.entries
        ]
        parts.append(f"## {chapter.title}\n\n| name | |\n|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def chapter_page(chapter: Chapter) -> str:
    """All names of one chapter in full."""
    return "\n\n".join([f"# {chapter.title}", *(_section(entry) for entry in chapter.entries)]) + "\n"


def _section(entry: Entry) -> str:
    """One name: heading, signature, docstring; of a module, those of its functions."""
    if not entry.is_module:
        return f"## `cp.{entry.name}` {{ #{entry.name} }}\n\n{_body(entry)}"
    inner = [f"### `cp.{entry.name}.{x.name}`\n\n{_body(x)}" for x in public_functions(entry.module)]
    return "\n\n".join([f"## `cp.{entry.name}` {{ #{entry.name} }}", _plain(summary(entry)), *inner])


def _body(entry: Entry) -> str:
    """Signature and docstring."""
    node, source = find_definition(entry.module, entry.name)
    text = markdown_of(ast.get_docstring(node) or "")
    if isinstance(node, ast.FunctionDef):
        return f"```python\n{_signature(node, source)}\n```\n\n{text}"
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef) and not part.name.startswith("__")]
    named = [f"**`{method.name}`**: {_plain(ast.get_docstring(method) or '')}" for method in methods]
    return "\n\n".join([text, f"```python\n{_fields(node, source)}\n```", *named])


def _signature(node: ast.FunctionDef, source: str) -> str:
    """The lines from `def` to the colon, as they were typed."""
    lines = source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    return "\n".join(lines).rstrip()


def _fields(node: ast.ClassDef, source: str) -> str:
    """The lines of a record from `class` to its last field, with the comments beside them, without its docstring."""
    lines = source.splitlines()
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    shown = [line for field in fields for line in lines[field.lineno - 1 : field.end_lineno]]
    return "\n".join([lines[node.lineno - 1], *(shown or ["    ..."])])


def markdown_of(docstring: str) -> str:
    r"""A docstring as Markdown: sections become lists, examples become code.

    >>> print(markdown_of("Adds.\n\nArgs:\n  a: a number,\n    or two."))
    Adds.
    <BLANKLINE>
    **Args**
    <BLANKLINE>
    - `a`: a number, or two.
    """
    return "\n\n".join(_block(block) for block in docstring.strip().split("\n\n"))


def _block(block: str) -> str:
    """One paragraph of a docstring."""
    lines = block.splitlines()
    if lines[0].startswith(PROMPT):
        return f"```pycon\n{block}\n```"
    title = SECTION.match(lines[0])
    if not title:
        return _plain(block)
    items = _items(textwrap.dedent("\n".join(lines[1:])).splitlines())
    return f"**{title[1]}**\n\n" + "\n".join(f"- {_item(item)}" for item in items)


def _items(lines: list[str]) -> list[str]:
    """The entries of a section: a line that is not indented begins one."""
    items: list[str] = []
    for line in lines:
        if line.startswith(" ") and items:
            items[-1] += f" {line.strip()}"
        else:
            items.append(line.strip())
    return items


def _item(text: str) -> str:
    """An entry with its name as code."""
    found = ENTRY.match(text)
    return f"`{found[1]}`: {_plain(found[2])}" if found else _plain(text)


def _plain(text: str) -> str:
    """Text that Markdown takes as it is: `*` and `_` outside of code mean themselves."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<|\[])", r"\\\1", part) for part in parts)
