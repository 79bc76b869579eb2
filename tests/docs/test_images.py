"""The documents themselves: README's length, links, images and the paths that they name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from docs import make_images
from simplenet.errors import SimpleNetError
from tests.docs.documents import DOCUMENTS, ROOT, anchors, images, inline_code, links

LARGEST_BYTES = 300_000
FOLDERS = ("simplenet", "runtimes", "export", "train", "demos", "tests", "docs")
ids = [path.name for path in DOCUMENTS]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 130


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_document_has_no_conflict_markers(document: Path) -> None:
    assert not re.search(r"^(<{7}|>{7}) ", document.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_links_resolve(document: Path) -> None:
    for link in links(document):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_images_are_small_and_can_be_read() -> None:
    named = {(document.parent / image).resolve() for document in DOCUMENTS for image in images(document)}
    kept = {path for path in (ROOT / "docs" / "images").iterdir() if path.suffix in (".png", ".webp", ".svg")}
    assert named <= kept
    for path in kept:
        assert path.stat().st_size <= LARGEST_BYTES, path
        if path.suffix != ".svg":
            with Image.open(path) as image:
                image.load()


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_named_paths_exist(document: Path) -> None:
    named = [code for code in inline_code(document) if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*", code)]
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.window
def test_black_screenshot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    monkeypatch.setattr(make_images, "_PAINT_TIMEOUT_S", 0.3)
    with make_images._virtual_screen() as screen, pytest.raises(SimpleNetError, match=r"stayed black.*make images"):
        make_images._grab(screen, (0, 0, 640, 480))
