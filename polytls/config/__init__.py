"""Configuration: defaults < TOML file < environment < command line, into one `polytls.settings.Settings`.

`schema` lists every key once and drives the rest; `kinds` and `endpoints` convert values; `layers` reads the
three sources; `load` puts them together. Reading the file is the only I/O. `load_settings` may be called
again at any time; `change` says what is not as it was, and what of that a running proxy cannot take.
"""

from __future__ import annotations

from polytls.config.load import LoadedSettings, load_settings

__all__ = ["LoadedSettings", "load_settings"]
