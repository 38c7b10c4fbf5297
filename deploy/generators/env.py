"""`env.example`: every variable the service reads, from `workers/settings.py`."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any, Final

from pydantic_core import PydanticUndefined

from workers.settings import Settings

_HEAD: Final = """\
# Every variable that Veriframe reads, with its default. Written by `python deploy/generate.py` from workers/settings.py: do not edit.
# Lists are JSON. VERIFRAME_<NAME>_FILE=/path reads a value from a file: use it for secrets.
"""
_MADE: Final = {
    "state_dir": "$XDG_STATE_HOME/veriframe, else ~/.local/state/veriframe",
    "concurrency": "number of CPUs, at most 4; with a CUDA device 4 to 32",
}
"""Defaults that are found when the service starts; a test asks that each such field is named here."""


def render() -> str:
    """The whole file."""
    return _HEAD + "".join(_entry(name, field) for name, field in Settings.model_fields.items())


def _entry(name: str, field: Any) -> str:
    variable = f"VERIFRAME_{name.upper()}"
    comment = "\n".join(textwrap.wrap(field.description or "", width=130, initial_indent="# ", subsequent_indent="# "))
    if field.default_factory is not None:
        return f"\n{comment}\n# default: {_MADE[name]}\n#{variable}=\n"
    assert field.default is not PydanticUndefined, f"{name} has no default: env.example cannot show one"
    return f"\n{comment}\n#{variable}={_text(field.default)}\n"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str | Path):
        return str(value)
    return json.dumps(value, default=str)
