"""A registry with something to review, the console in front of it, and a browser."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from console_parts import ADA, CARD, MODEL, SEED, Console, run_console
from huggingface_hub import HfApi
from registry_parts import make_model, run_registry
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from required import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver.chrome.webdriver import WebDriver


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    model = make_model(folder / "tiny", weights=40_000)
    (model / "README.md").write_text(CARD)
    with (
        run_registry(folder / "registry", "--jurisdiction", "de", seed=SEED) as registry,
        run_console(folder, registry.url) as url,
    ):
        api = HfApi(endpoint=registry.url, token=ADA)
        api.create_repo(MODEL)
        api.upload_folder(repo_id=MODEL, folder_path=model, commit_message="First weights")
        yield Console(url, registry)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        lacking("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options, Service(driver, env=os.environ | {"SE_OFFLINE": "true"}))
    try:
        yield made
    finally:
        made.quit()


@pytest.fixture
def browser(chromium: WebDriver) -> WebDriver:
    """Return the browser as nobody has used it."""
    chromium.get("about:blank")
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    chromium.set_window_size(1100, 800)
    chromium.get_log("browser")  # what others caused
    return chromium
