"""The page in a real browser, where there is one: no error, no request, a table that sorts, keyboard and phone."""

import re
import shutil
import subprocess

import pytest

from cnnprobe.reporting.html import render_html

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PROBE = """
<script>
addEventListener("securitypolicyviolation", (event) => { document.title = "blocked " + event.blockedURI; });
addEventListener("error", (event) => { document.title = "error " + event.message; });
const order = () => [...document.querySelectorAll(".layers tbody tr")].map((row) => row.cells[1].textContent).join();
const press = (index) => { document.querySelectorAll(".layers thead button")[index].click(); return order(); };
const sizes = performance.getEntriesByType("resource").length;
document.title = [sizes, press(COLUMN), press(COLUMN)].join(" ");
</script></body>"""

FOCUS = """
<script>
const usable = [...document.querySelectorAll("button, summary, [tabindex]")];
const reached = usable.filter((element) => { element.focus(); return document.activeElement === element; });
document.title = [usable.length > 10, usable.length - reached.length].join(" ");
</script></body>"""
PHONE = """<title>none</title><iframe src="page.html" style="width:390px;height:800px"></iframe>
<script>addEventListener("message", (event) => { document.title = event.data; });</script>"""
WIDTHS = """
<script>
const page = document.documentElement;
addEventListener("load", () => parent.postMessage(String(page.scrollWidth - page.clientWidth), "*"));
</script></body>"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no chromium here")]


def open_page(page, folder, *options, name="page.html"):
    """What the browser prints once the page's scripts have run."""
    (folder / name).write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [BROWSER, *QUIET, *options, profile, "--dump-dom", (folder / name).as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def title_of(page, folder, *options, name="page.html"):
    """The title of the page after its scripts ran."""
    return re.search(r"<title>(.*?)</title>", open_page(page, folder, *options, name=name).stdout)[1]


@pytest.mark.parametrize(
    ("column", "first", "second"),
    [
        (1, "Conv_0,Conv_1,Dense_0,Dense_1", "Dense_1,Dense_0,Conv_1,Conv_0"),
        (4, "Dense_1,Dense_0,Conv_1,Conv_0", "Conv_0,Conv_1,Dense_0,Dense_1"),
    ],
)
def test_the_table_sorts_both_ways_and_nothing_is_asked_for(column, first, second, faulty, tmp_path):
    page = render_html(faulty).replace("</body>", PROBE.replace("COLUMN", str(column)))
    assert title_of(page, tmp_path) == f"0 {first} {second}"


def test_what_is_not_a_number_sorts_last(faulty, tmp_path):
    values = (float("nan"), 2.0, -1.0, 10.0)
    layers = [layer._replace(activation_std=x) for layer, x in zip(faulty.layers, values, strict=True)]
    page = render_html(faulty._replace(layers=tuple(layers))).replace("</body>", PROBE.replace("COLUMN", "4"))
    assert title_of(page, tmp_path) == "0 Dense_0,Conv_1,Dense_1,Conv_0 Dense_1,Conv_1,Dense_0,Conv_0"


def test_the_console_stays_empty(faulty, tmp_path):
    assert "CONSOLE" not in open_page(render_html(faulty), tmp_path, "--enable-logging=stderr").stderr


def test_all_that_can_be_used_takes_the_focus(faulty, tmp_path):
    page = render_html(faulty).replace("<details>", "<details open>").replace("</body>", FOCUS)
    assert title_of(page, tmp_path) == "true 0"


def test_a_phone_need_not_scroll_sideways(faulty, tmp_path):
    (tmp_path / "page.html").write_text(render_html(faulty).replace("</body>", WIDTHS), encoding="utf-8")
    assert title_of(PHONE, tmp_path, "--virtual-time-budget=5000", name="phone.html") == "0"
