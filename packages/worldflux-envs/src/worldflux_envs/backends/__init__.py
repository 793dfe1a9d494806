"""One module per backend, each the plugin of its entry points."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated distribution 'worldflux'
