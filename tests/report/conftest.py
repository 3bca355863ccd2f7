from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_vdn.train.problem import Problem, Source, load_problem
from pyro_vdn.train.recipes import ForecastingRecipe

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, started once."""
    if BROWSER is None:
        pytest.skip("no chromium or google-chrome on this machine")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, headless=True, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def browser_page(browser: Any) -> Iterator[Any]:
    opened = browser.new_page()
    yield opened
    opened.close()


@pytest.fixture
def complaints(browser_page: Any) -> list[str]:
    """What the page says on the console, throws or pops up, and what it asks the network for."""
    found = list[str]()
    browser_page.on("console", lambda message: found.append(message.text))
    browser_page.on("pageerror", lambda error: found.append(str(error)))
    browser_page.on("dialog", lambda dialog: (found.append("dialog"), dialog.dismiss()))
    browser_page.on("request", lambda request: found.append(request.url) if _far(request) else None)
    return found


def _far(request: Any) -> bool:
    return not request.url.startswith(("file:", "data:"))


@pytest.fixture
def colour() -> Callable[[Any, str], tuple[int, int, int]]:
    """From an element and the name of a style to the colour it is shown in."""

    def read(element: Any, name: str) -> tuple[int, int, int]:
        text = element.evaluate(f"e => getComputedStyle(e).{name}")
        red, green, blue = (int(part) for part in re.findall(r"\d+", text)[:3])
        return red, green, blue

    return read


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """Windows of two channels, 12 steps to look back on and 6 to forecast."""
    random, steps = np.random.RandomState(0), np.arange(420)
    frame = pd.DataFrame({"a": np.sin(steps / 5), "b": random.randn(420).cumsum()})
    path = tmp_path_factory.mktemp("series") / "series.csv"
    frame.to_csv(path, index=False)
    recipe = ForecastingRecipe(input_length=12, horizon=6, kernel_size=3, num_units=4, test_every=2)
    return load_problem(Source(str(path)), recipe)
