"""Accessibility of the page: names for screen readers, contrast, keyboard, small screens, reduced motion."""

from __future__ import annotations

import pytest

from demos.live.page.server import Page
from tests.demos.live.page.chromium import (
    ALLOWED,
    OpenTab,
    in_chromium,
)
from tests.demos.live.page.conftest import Demo

pytestmark = in_chromium


# Texts with less than 4.5:1 (3:1 where large) between their color and what they lie on; not those over the picture.
LOW_CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const isElsewhere = element.closest(".captions, .skip, .hidden, noscript");
    if (!texts.currentNode.data.trim() || !element.checkVisibility() || isElsewhere) continue;
    let under = element;
    while (under && rgba(getComputedStyle(under).backgroundColor)[3] < 255) under = under.parentElement;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(style.color)), light(rgba(getComputedStyle(under ?? document.body).backgroundColor))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) found.push(`${texts.currentNode.data.trim()} ${ratio}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names_of_controls(page: Page, demo: Demo, scheme: str, open_tab: OpenTab) -> None:
    demo.facts.update(untrained=True, switching=True, notice="loading openvino int8…")
    tab = open_tab(page, ALLOWED, color_scheme=scheme, viewport={"width": 375, "height": 812})
    tab.best("red")
    tab.view.evaluate("document.getElementById('error').classList.add('shown')")
    tab.view.evaluate("document.getElementById('error').textContent = 'The demo does not answer.'")
    for _ in range(2):
        assert tab.view.evaluate("document.documentElement.scrollWidth") <= 375
        nodes = tab.view.context.new_cdp_session(tab.view).send("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "checkbox", "radio", "combobox", "img", "image", "heading", "dialog", "region", "group"}
        named = {
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored") and node["role"]["value"] in roles
        }
        assert not [role for role, name in named if not name.strip() and role != "group"]
        assert ("radio", "My camera") in named
        assert ("checkbox", "openvino") in named
        assert ("combobox", "Variant") in named
        assert tab.view.evaluate(LOW_CONTRAST) == []
        tab.view.get_by_label("My camera").check()  # and once more with the explanation
        tab.shows("#camera-error", "No camera found")
    ids = tab.view.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))


def test_focus_is_visible_and_reaches_everything(page: Page, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    seen = []
    for _ in range(30):
        tab.view.keyboard.press("Tab")
        described = tab.view.evaluate(
            """() => { const element = document.activeElement, drawn = element.nextElementSibling ?? element;
            const outline = (e, p) => e && getComputedStyle(e, p).outlineStyle !== "none";
            const name = element.id || element.value || element.textContent;
            return [name, outline(element) || outline(drawn) || outline(element, "::after")]; }"""
        )
        seen.append(described)
    names = {name for name, _ in seen}
    assert {"pause", "snapshot", "help", "server", "variant", "record", "server-snapshot", "openvino"} <= names
    assert not [name for name, is_visible in seen if name and not is_visible and "SimpleNet" not in name]


def test_respects_reduced_motion(page: Page, open_tab: OpenTab) -> None:
    tab = open_tab(page, reduced_motion="reduce")
    tab.best("red")
    script = "getComputedStyle(document.querySelector('.bar i')).transitionDuration"
    assert tab.view.evaluate(script) == "0s"
