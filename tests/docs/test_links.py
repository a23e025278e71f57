"""Links and anchors of README and docs lead somewhere."""

import pytest
from doc_pages import PAGES, ROOT, read_page


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_and_anchors_resolve(path):
    page = read_page(path)
    for link in page.links():
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in read_page(target).anchors(), f"{page.name}: {link}"


def test_every_page_is_linked_from_another():
    linked = {
        (path.parent / link.partition("#")[0]).resolve()
        for path in PAGES
        for link in read_page(path).links()
        if "://" not in link and link.partition("#")[0]
    }
    alone = [path for path in PAGES if path.parent.name != "decisions" and path not in linked]
    assert [path.name for path in alone if path.name not in ("README.md", "LOG.md")] == []
