"""The page in a real browser: Debian's Chromium, driven by Playwright, which brings no browser of its own here."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resx.ledger import STATEMENTS

pypdfium2 = pytest.importorskip("pypdfium2", reason="the printed page is read by pypdfium2")
playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested in a browser by playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium here: apt-get install chromium")

PAGE = Path(__file__).parents[2] / "results" / "report.html"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]  # root has no sandbox, and /dev/shm may be small
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


# What is wrong with a page, each as a list or an object that is empty where nothing is.
DEAD_LINKS = """[...document.querySelectorAll('a[href], use')]
  .map(link => link.getAttribute('href') || link.getAttribute('xlink:href'))
  .filter(to => !to.startsWith('data:') && !(to.startsWith('#') && document.getElementById(to.slice(1))))"""
INVISIBLE = """[...document.querySelectorAll('figure > svg')].filter(svg => {
  const box = svg.getBoundingClientRect(), drawn = svg.getBBox();
  return !svg.getAttribute('aria-label') || Math.min(box.width, box.height, drawn.width, drawn.height) < 100;
}).map(svg => svg.outerHTML.slice(0, 99))"""
CLASHES = """[...document.querySelectorAll('[id]')].map(one => one.id).filter((id, at, all) => all.indexOf(id) < at)"""
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92
    : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => { for (; node; node = node.parentElement) {
    const colour = parse(getComputedStyle(node).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour; } return [255, 255, 255]; };
  const low = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, style = getComputedStyle(node);
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "style", "OPTION"].includes(node.tagName)) continue;
    const ink = parse(node.closest("svg") ? style.fill : style.color);
    const behind = ground(node);
    if (node.closest("svg") && light(ink) > 0.9) continue; // white in a cell of a figure that is dark itself
    const [a, b] = [light(ink), light(behind)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low[`${node.tagName}.${node.className.baseVal ?? node.className} ${ink} on ${behind}`] = ratio;
  }
  return low;
}"""


def watched(browser: Any, file: Path, heard: list[str], **context: Any) -> Any:
    """Open a file, and note every message, error and request but that for the file itself."""
    page = browser.new_context(**context).new_page()
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    return page


@pytest.fixture(scope="module")
def open_page(browser: Any) -> Iterator[Open]:
    """Return a function that shows the committed page at a width and in a scheme; it is loaded once with script, once
    without."""
    pages: dict[bool, Any] = {}
    heard: list[str] = []

    def open_once(width: int = 1280, scheme: str = "light", script: bool = True) -> Any:
        if script not in pages:
            pages[script] = watched(browser, PAGE, heard, java_script_enabled=script)
        page = pages[script]
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        return page

    yield open_once
    assert heard == []  # whatever was done to the page: no message, no error, no request but the file itself


def test_the_page_loads_without_a_message_or_a_request(open_page: Open) -> None:
    page = open_page()
    assert page.title()
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


def test_every_link_leads_to_something(open_page: Open) -> None:
    assert open_page().evaluate(DEAD_LINKS) == []


def test_a_claims_key_is_a_link(open_page: Open) -> None:
    page = open_page()
    anchors = page.evaluate("[...document.querySelectorAll('.statement tr[id]')].map(row => row.id)")
    keys = [key for one in STATEMENTS for key in one.claims]
    assert any(anchor in keys for anchor in anchors)
    assert all(page.locator(f"#statement-{one.number}").count() == 1 for one in STATEMENTS)


def test_every_figure_is_visible(open_page: Open) -> None:
    page = open_page()
    assert page.locator("figure > svg").count() > len(STATEMENTS)
    assert page.evaluate(INVISIBLE) == []


def test_ids_do_not_clash(open_page: Open) -> None:
    assert open_page().evaluate(CLASHES) == []


def test_a_click_sorts_a_table(open_page: Open) -> None:
    page = open_page()
    words = "[...document.querySelectorAll('#glance tbody tr')].map(row => row.cells[2].innerText)"
    head = page.locator("#glance th", has_text="verdict")
    head.click()
    assert page.evaluate(words) == sorted(page.evaluate(words))
    head.click()
    assert page.evaluate(words) == sorted(page.evaluate(words), reverse=True)


def test_a_sort_keeps_the_effects_of_a_claim_together(open_page: Open) -> None:
    page = open_page()
    owners = """(() => { let owner = ''; return [...document.querySelector('section.experiment tbody').rows].map(row =>
        [owner = row.id || owner, row.querySelector('.number')?.innerText].join()).sort(); })()"""
    before = page.evaluate(owners)
    page.locator("section.experiment th", has_text="mean").first.click()
    assert page.evaluate(owners) == before


def test_a_choice_filters_the_statements(open_page: Open) -> None:
    page = open_page()
    rows = page.locator("#glance tbody tr:visible")
    everything = rows.count()
    word = page.locator("#by-verdict option").nth(1).get_attribute("value")
    page.select_option("#by-verdict", word)
    assert 0 < rows.count() < everything
    assert set(rows.evaluate_all("rows => rows.map(row => row.dataset.verdict)")) == {word}
    page.select_option("#by-verdict", "")
    assert rows.count() == everything == len(STATEMENTS)


def test_a_seed_is_highlighted(open_page: Open) -> None:
    page = open_page()
    seed = page.locator("#by-seed option").nth(1).get_attribute("value")
    page.select_option("#by-seed", seed)
    assert page.locator(".here").count() and page.locator(".away").count()
    page.select_option("#by-seed", "")
    assert page.locator(".here, .away").count() == 0


def test_a_table_can_be_downloaded(open_page: Open) -> None:
    page = open_page()
    table = page.locator("details", has=page.locator("table.data")).first
    table.locator("summary").first.click()
    with page.expect_download() as download:
        table.get_by_text("CSV", exact=True).click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == table.locator("tr").count()
    assert download.value.suggested_filename.endswith(".csv")


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_a_click_shows_where_a_number_comes_from(open_page: Open, script: bool) -> None:
    page = open_page(script=script)
    panel = page.locator("#glance .from").first
    assert not panel.locator("p").is_visible()
    panel.locator("summary").click()
    text = panel.locator("p").inner_text()
    assert re.search(r"\d+ runs, seeds \d.*resx .*commit [0-9a-f]{6}", text)
    panel.locator("summary").click()


def test_without_javascript_everything_can_be_read(open_page: Open) -> None:
    page = open_page(script=False)
    for one in STATEMENTS:
        section = page.locator(f"#statement-{one.number}")
        assert section.is_visible()
        assert one.text in section.inner_text()
    assert not page.locator(".controls").is_visible()  # nothing is offered that would not work


def test_the_table_of_statements_fits_a_laptop(open_page: Open) -> None:
    box = open_page(script=False).locator("#glance").bounding_box()
    assert box["y"] + box["height"] < 800


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_is_wider_than_the_screen(open_page: Open, width: int) -> None:
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:  # what a phone shows of the statements needs no sideways scrolling either
        cut = (
            "[...document.querySelectorAll('.stack')].filter(table => table.getBoundingClientRect().right > 390).length"
        )
        assert page.evaluate(cut) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page: Open, scheme: str) -> None:
    assert open_page(scheme=scheme).evaluate(CONTRAST) == {}


def test_on_paper_every_statement_begins_a_page(open_page: Open) -> None:
    with pypdfium2.PdfDocument(open_page().pdf(format="A4")) as document:
        begins = [" ".join(page.get_textpage().get_text_range(count=200).split()) for page in document]
    pages = [
        [place for place, text in enumerate(begins) if text.startswith(f"{one.number}. {one.text[:40]}")]
        for one in STATEMENTS
    ]
    assert all(len(places) == 1 for places in pages)
    assert pages == sorted(pages) and pages[0] == [1]  # in order, right after the table of all


GOOD = """<a href="#a">a link</a><figure><svg id="a" role="img" aria-label="a line" width="200" height="200"
    viewBox="0 0 200 200"><path d="M0 0 L200 200"/></svg></figure><p style="color: #333">text</p>"""


@pytest.mark.parametrize(
    ("old", "new", "finds"),
    [
        ("", "", None),
        ('href="#a"', 'href="#b"', DEAD_LINKS),
        ("<p ", '<p id="a" ', CLASHES),
        ("<figure>", "<figure hidden>", INVISIBLE),
        ('L200 200"', 'L0 0"', INVISIBLE),
        ('aria-label="a line"', "", INVISIBLE),
        ("#333", "#999", CONTRAST),
        ("</p>", "</p><script>console.log('hm')</script>", "heard"),
        ("</p>", "</p><script>nothing.at.all</script>", "heard"),
        ("</p>", "</p><img src='https://example.org/x.png'>", "heard"),
    ],
)
def test_a_fault_is_found(browser: Any, tmp_path: Path, old: str, new: str, finds: str | None) -> None:
    file, heard = tmp_path / "page.html", list[str]()
    file.write_text(GOOD.replace(old, new, 1))
    page = watched(browser, file, heard)
    outcomes = {code: page.evaluate(code) for code in (DEAD_LINKS, CLASHES, INVISIBLE, CONTRAST)} | {"heard": heard}
    page.context.close()
    wrong = {code for code, faults in outcomes.items() if faults}
    assert wrong == ({finds} if finds else set())
