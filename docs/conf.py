"""Sphinx configuration."""

project = "WorldFlux"
author = copyright = "The WorldFlux authors"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "WorldFlux"
exclude_patterns: list[str] = []
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]
