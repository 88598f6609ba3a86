"""The page in a real browser: it draws, answers keyboard and mouse, and never complains."""

import time

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.study.microscope import build_page
from gpt_numpy.study.whole_model import unit_scale
from tests.study.letters import Letters


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    model = GPT(GPTConfig(26, 64, n_layer=4, n_head=4, n_embd=128), ops=layers)
    unit_scale(model.params, np.random.default_rng(0))
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(build_page(model, Letters(), "thequickbrownfoxjumpsoverthelazydog"), encoding="utf-8")
    assert path.stat().st_size < 5e6
    return path.as_uri()


@pytest.fixture
def opened(browser, page):
    browser.errors.clear()
    browser.size(1280, 900)
    browser.open("about:blank")
    browser.open(page)
    yield browser
    assert browser.errors == []


CURRENT = "document.querySelector('.box.current').id.slice(4)"


def test_it_opens_within_two_seconds(opened, page):
    seconds = []
    for _ in range(3):  # the best of three: another program's burst is not the page's
        opened.open("about:blank")
        started = time.perf_counter()
        opened.open(page)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 2


def test_it_opens_at_the_loss(opened):
    assert opened.evaluate(CURRENT) == "lm_head.loss"
    assert opened.evaluate("document.querySelectorAll('#tokens button').length") == 32
    assert opened.evaluate("document.querySelectorAll('#flow a').length") == 2 * (1 + 4 * 4 + 1)


def test_a_key_follows_the_gradient_from_the_loss_to_the_embedding_and_back(opened):
    names = [opened.evaluate(CURRENT)]
    n_tensors = opened.evaluate("order.length")
    for _ in range(n_tensors - 1):
        opened.key("[", "[", 219)
        opened.evaluate("new Promise((done) => setTimeout(done))")  # hashchange comes a moment later
        names.append(opened.evaluate(CURRENT))
    assert names == opened.evaluate("[...order].reverse()")
    assert names[0] == "lm_head.loss" and names[-1] == "embedding.tokens"
    opened.key("]", "]", 221)
    opened.evaluate("new Promise((done) => setTimeout(done))")
    assert opened.evaluate(CURRENT) == names[-2]
    assert opened.evaluate("document.activeElement.id") == "box-" + names[-2]


def test_the_mouse_follows_the_same_links(opened):
    opened.click("#stages a[href='#stage:h.2']")
    opened.evaluate("new Promise((done) => setTimeout(done))")
    assert opened.evaluate("document.querySelector('#stages [aria-current]').textContent").startswith("block 2")
    assert opened.evaluate(CURRENT) == "h.2.residual_2"
    opened.click("[id='box-h.2.attn.weights'] .steps a")
    opened.evaluate("new Promise((done) => setTimeout(done))")
    assert opened.evaluate(CURRENT) == "h.2.attn.scores"
    opened.click("#flow a[href='#h.1.mlp']")
    opened.evaluate("new Promise((done) => setTimeout(done))")
    assert opened.evaluate(CURRENT) == "h.1.mlp"


def test_arrow_keys_read_entries_of_a_picture(opened):
    opened.evaluate("location.hash = 'h.0.attn.weights'; new Promise((done) => setTimeout(done))")
    opened.evaluate("document.querySelectorAll(\"[id='box-h.0.attn.weights'] canvas\")[2].focus()")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        opened.key(key, code={"ArrowDown": 40, "ArrowRight": 39}[key])
    text = opened.evaluate("document.getElementById('inspector').textContent")
    assert text.startswith("h.0.attn.weights, head 2, token 2 “e”, key 1 “h”:")
    expected = opened.evaluate("number(entry(data.tensors['h.0.attn.weights'].value, 2, 2, 1))")
    assert f"value ≈ {expected}," in text
    opened.key("Enter", "\r", 13)
    assert opened.evaluate("document.querySelector('#tokens [aria-checked=true]').textContent") == "e"


def test_tokens_are_chosen_by_arrow_keys_and_by_a_click(opened):
    opened.evaluate("document.querySelector('#tokens [tabindex=\"0\"]').focus()")
    opened.key("ArrowLeft", code=37)
    assert opened.evaluate("state.token") == 31 and opened.evaluate("document.activeElement.textContent") == "y"
    opened.click("#tokens button:nth-child(4)")
    assert opened.evaluate("state.token") == 3
    assert opened.evaluate("document.getElementById('token').textContent").startswith("After q came u: loss")
    assert opened.evaluate("getComputedStyle(document.body).getPropertyValue('--row')") == "3"


def test_what_is_drawn_are_the_colors_of_the_numbers_in_both_themes(opened):
    # read through a canvas of the test's own: reading back from the page's would draw a warning
    pixel = """(() => {
        const own = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
        own.drawImage(document.querySelector("canvas"), 0, 0, 1, 1, 0, 0, 1, 1);
        return [...own.getImageData(0, 0, 1, 1).data, getComputedStyle(document.body).backgroundColor];
    })()"""

    def seen():
        opened.evaluate("new Promise((done) => setTimeout(done, 50))")
        return opened.evaluate(pixel)

    opened.prefer("light")
    light = seen()
    opened.prefer("dark")
    dark = seen()
    assert light[:3] != dark[:3] and light[4] != dark[4]
    opened.click("#theme")
    assert seen() == light
    opened.key("t", "t")
    assert seen() == dark
    opened.prefer("light")


def test_every_control_has_a_name_and_is_reached_by_tab(opened):
    unnamed = opened.evaluate(
        "[...document.querySelectorAll('a, button, canvas, summary')]"
        ".filter((e) => !(e.getAttribute('aria-label') || e.textContent).trim()).length"
    )
    unreachable = opened.evaluate(
        "[...document.querySelectorAll('a, button:not([role=radio]), canvas, summary')]"
        ".filter((e) => e.tabIndex < 0).length"
    )
    assert (unnamed, unreachable) == (0, 0)


def test_a_narrow_window_needs_no_sideways_scrolling(opened):
    opened.size(420, 900)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 420


def test_a_click_enlarges_a_picture_with_the_tokens_along_its_axes(opened):
    opened.evaluate("location.hash = 'h.0.attn.weights'")
    opened.click("[id='box-h.0.attn.weights'] canvas")
    assert opened.evaluate("document.querySelector('#large').open")
    assert opened.evaluate("document.querySelectorAll('#large .keys span').length") == 32
    assert opened.evaluate("document.querySelector('#large .rows').textContent").startswith("thequick")
    opened.click("#large button")
    assert not opened.evaluate("document.querySelector('#large').open")
    assert "nothing passes" in opened.evaluate(
        "document.querySelector(\"[id='box-h.0.attn.weights'] .note\").textContent"
    )


def test_the_bar_under_a_token_is_the_loss_of_that_token(opened):
    script = "[...document.querySelectorAll('#tokens button')].map((b) => Number(b.style.getPropertyValue('--loss')))"
    bars = opened.evaluate(script)
    losses = opened.evaluate("data.tokens.map((t) => t.loss)")
    assert bars[0] == 0 and np.allclose(np.array(bars[1:]) * max(losses), losses[:-1])
