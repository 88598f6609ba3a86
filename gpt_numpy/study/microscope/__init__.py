"""The gradient microscope: one HTML page that shows a block as it computes, forward and backward.

``page`` traces a pass and packs it, ``boxes`` knows each intermediate's formula, derivation and source line;
``page.html``, ``page.css`` and ``page.js`` draw it, with no library and no network.
"""

from .page import build_page

__all__ = ["build_page"]
