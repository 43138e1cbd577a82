"""The report in a browser: figures are drawn, nothing is asked of the network, and it fits a phone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import report_folder
from browser import CHROMIUM, Browser

from reap_tools.cli import main

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (jobs/setup-debian.sh --browser)")

_FIGURES = """[...document.querySelectorAll('.drawing')].map(drawing => {
  const box = drawing.getBoundingClientRect();
  return {name: drawing.closest('figure').id, alt: drawing.getAttribute('aria-label'),
          x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height};
})"""
_IMAGES = """Promise.all([...document.querySelectorAll('image')].map(element => {
  const image = new Image();
  image.src = element.href.baseVal;
  return image.decode().then(() => [image.naturalWidth, image.naturalHeight], error => [0, 0]);
}))"""
_LEAST_SPREAD = 0.02  # standard deviation of a figure's pixels; of one colour it is 0


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a folder with everything."""
    folder = report_folder.write_folder(tmp_path_factory.mktemp("report") / "results")
    assert main(["report", str(folder)]) == 0
    return folder / "report.html"


def spread(png: bytes) -> float:
    """How much the pixels differ."""
    pixels: Any = matplotlib.image.imread(io.BytesIO(png))
    return float(pixels[..., :3].std())


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_page(page: Path, width: int, dark: bool) -> None:
    with Browser(width, 844, dark) as browser:
        browser.open(page)
        assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
        assert browser.ask("document.documentElement.scrollWidth") == width, "the page is wider than the screen"
        figures = browser.ask(_FIGURES)
        assert len(figures) == 2 + 3 + 2 * 2 + 1 + 2  # all domains, each domain, two plans twice, usage, stability
        for figure in figures:
            assert figure["width"] > 250 and figure["height"] > 100 and figure["alt"], figure
            shot = browser.picture(figure["x"], figure["y"], figure["width"], figure["height"])
            assert spread(shot) > _LEAST_SPREAD, f"{figure['name']} is blank"


@pytest.mark.parametrize("name", ["saliency.h5", "sweep.json"])
def test_page_of_little(tmp_path: Path, name: str) -> None:
    """What is said instead of figures fits a phone, too."""
    folder = report_folder.write_folder(tmp_path / "results")
    for path in folder.iterdir():
        if path.name != name:
            path.unlink()
    assert main(["report", str(folder)]) == 0
    with Browser(390, 844) as browser:
        browser.open(folder / "report.html")
        assert browser.ask("document.documentElement.scrollWidth") == 390


def test_images_in_figures(page: Path) -> None:
    with Browser(1280, 844) as browser:
        browser.open(page)
        # The page's policy forbids scripts of its own, not the test's.
        sizes = browser.ask(_IMAGES)
        assert sizes.count([report_folder.EXPERTS, report_folder.LAYERS]) == 2 * 2 + 1  # one pixel per expert
        assert min(min(size) for size in sizes) > 0


def test_the_check_can_fail(tmp_path: Path) -> None:
    """A page with a blank figure, an outside image and a wide box is caught in all three."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><meta name=viewport content='width=device-width'><figure id=f><div class=drawing "
        "style='width:900px;height:200px'></div></figure><img src='http://127.0.0.1:9/x.png'>"
    )
    with Browser(390, 844) as browser:
        browser.open(page)
        assert "http://127.0.0.1:9/x.png" in browser.requests
        assert browser.ask("document.documentElement.scrollWidth") > 390
        (figure,) = browser.ask(_FIGURES)
        assert spread(browser.picture(figure["x"], figure["y"], 300, 100)) < _LEAST_SPREAD
