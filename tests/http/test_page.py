"""The page at `/`: what it is made of, and what a browser makes of it."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.http.browser import Page, find_browser, new_page
from tests.http.server_process import ServerProcess

BROWSER = find_browser()
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
HELLO = {"prompt": "hello world", "temperature": 0, "max_tokens": 20, "ignore_eos": True}


def test_the_page_needs_nothing_else(server: ServerProcess) -> None:
    status, page = server.get("/")
    assert status == 200
    assert page.startswith("<!doctype html>")
    assert set(re.findall(r"https?://[^\"'\s]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.findall(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=\"(?!data:)", page)
    assert "@import" not in page
    assert len(page) < 20_000


def test_the_script_names_elements_that_are_there(server: ServerProcess) -> None:
    _, page = server.get("/")
    named = set(re.findall(r"(?:\$|say|lines|rows|pages)\(\"([\w-]+)\"", page))
    assert named <= set(re.findall(r"\bid=\"([\w-]+)\"", page))
    assert len(named) > 10


def test_the_page_is_open_and_the_figures_are_not(checkpoint: Path) -> None:
    with ServerProcess("--model", str(checkpoint), "--api-key", "sesame", "--served-model-name", "xyzzy") as server:
        status, page = server.get("/")
        assert status == 200
        assert "xyzzy" not in page
        assert server.get("/status.json")[0] == 401
        assert server.get("/status.json", {"Authorization": "Bearer sesame"})[0] == 200


def with_page(folder: Path, scenario: Callable[[Page], Awaitable[None]]) -> None:
    async def run() -> None:
        assert BROWSER is not None
        async with new_page(BROWSER, folder) as page:
            await scenario(page)

    asyncio.run(run())


def shown(id: str) -> str:
    return f"document.getElementById({id!r}).textContent"


@in_a_browser
def test_it_lives(server: ServerProcess, tmp_path: Path) -> None:
    async def scenario(page: Page) -> None:
        await page.open(server.url + "/")
        assert await page.wait(f"{shown('state')} == 'ready' && {shown('model')}") == "echo"
        before = await page.run("document.getElementById('totals').innerText")
        for _ in range(3):
            await asyncio.to_thread(server.post, "/v1/completions", HELLO)
        await page.wait(f"document.getElementById('totals').innerText != {before!r}")
        await page.wait(f"parseFloat({shown('generated')}) > 0")
        assert "first token" in await page.run(shown("latency"))
        assert await page.wait(
            "(document.querySelector('#generated-line path').getAttribute('d').match(/L/g) || []).length"
        )
        assert await page.run("document.getElementById('host-card').hidden") is True
        assert {re.sub(r"(https?://[^/]+).*", r"\1", url) for url in page.requests} <= {server.url, "data:,"}
        assert page.errors == []

    with_page(tmp_path, scenario)


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_by_day_and_by_night(server: ServerProcess, tmp_path: Path, scheme: str) -> None:
    async def scenario(page: Page) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await page.call("Emulation.setEmulatedMedia", features=features)
        await page.open(server.url + "/")
        await page.wait(f"{shown('state')} == 'ready'")
        paper, ink = [
            sum(map(int, re.findall(r"\d+", await page.run(f"getComputedStyle(document.body).{name}"))))
            for name in ("backgroundColor", "color")
        ]
        assert (paper > ink) == (scheme == "light")
        assert abs(paper - ink) > 500
        narrow = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
        await page.call("Emulation.setDeviceMetricsOverride", **narrow)
        assert await page.run("document.documentElement.scrollWidth <= 360")

    with_page(tmp_path, scenario)


@in_a_browser
def test_it_asks_for_the_key(checkpoint: Path, tmp_path: Path) -> None:
    give = "document.getElementById('key').value = {!r}; document.querySelector('form button').click()"

    async def scenario(page: Page) -> None:
        await page.open(server.url + "/")
        await page.wait("!document.getElementById('ask').hidden")
        await page.run(give.format("wrong"))
        await page.wait(f"{shown('state')} == 'needs its API key'")
        assert await page.run("document.getElementById('main').hidden")
        await page.run(give.format("sesame"))
        await page.wait(f"{shown('state')} == 'ready' && document.getElementById('ask').hidden")
        assert not await page.run("document.getElementById('main').hidden")

    with ServerProcess("--model", str(checkpoint), "--api-key", "sesame") as server:
        with_page(tmp_path, scenario)


@in_a_browser
def test_it_tells_that_the_server_is_gone(checkpoint: Path, tmp_path: Path) -> None:
    async def scenario(page: Page) -> None:
        await page.open(server.url + "/")
        await page.wait(f"{shown('state')} == 'ready'")
        server.process.kill()
        await page.wait(f"{shown('state')} == 'gone'")

    with ServerProcess("--model", str(checkpoint)) as server:
        with_page(tmp_path, scenario)
