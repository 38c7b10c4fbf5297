"""What names a run: its settings, without those that were added later and still stand at their default.

A setting that did not exist when a run was made had what is its default now. So a new setting leaves the folders of older runs
valid: they are continued, and their outcomes count, as long as nobody changes it.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .face_pack import FacePack

ADDED_LATER: Final = {"added_later": True}
"""Metadata of a settings field that older runs do not know; its default is what they did."""


def later_defaults(settings_class: type[Any]) -> dict[str, Any]:
    """Fields of a settings class that older runs lack, and what they had instead."""
    return {field.name: field.default for field in dataclasses.fields(settings_class) if "added_later" in field.metadata}


def described(settings: Any) -> dict[str, Any]:
    """The settings that name a run, as JSON would give them back."""
    later = later_defaults(type(settings))
    kept = {name: value for name, value in dataclasses.asdict(settings).items() if name not in later or value != later[name]}
    named: dict[str, Any] = json.loads(json.dumps(kept))
    return named


def named_run(recipe: str, settings: Any, train: FacePack) -> str:
    """The identity of a supervised run: its recipe, every setting and the faces that it learns from."""
    return f"{recipe} {json.dumps(described(settings), sort_keys=True)} {train.sha256()}"
