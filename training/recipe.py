"""What a recipe is: one named experiment with settings, presets and one function that runs it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from .errors import ConfigError
from .material import Material

OnLog = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Context:
    """What a run gets."""

    settings: Any
    """The recipe's own settings dataclass."""
    material: Material
    run_dir: Path
    on_log: OnLog = lambda _row: None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to; written to `run_dir/outcome.json`."""

    metrics: Mapping[str, float | str | bool]
    artefacts: Sequence[str] = ()
    """Files and folders in the run folder; `bundle` is what `export` takes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One named experiment."""

    name: str
    study: str
    """Which published system it comes from."""
    summary: str
    presets: Mapping[str, Any]
    """`smoke` (seconds), `cpu` (two cores, minutes to an hour), `gpu`."""
    run: Callable[[Context], Outcome] = field(repr=False)

    def settings(self, preset: str, overrides: Sequence[str] = ()) -> Any:
        """The preset's settings with `key=value` overrides.

        Raises:
            ConfigError: unknown preset, unknown key or a value of the wrong type.
        """
        if preset not in self.presets:
            raise ConfigError(f"recipe {self.name} has no preset {preset!r}; it has {', '.join(self.presets)}")
        settings = self.presets[preset]
        hints = get_type_hints(type(settings))
        changes: dict[str, Any] = {}
        for item in overrides:
            key, separator, text = item.partition("=")
            if not separator or key not in hints:
                raise ConfigError(f"recipe {self.name}: {item!r} is not key=value with one of the keys {', '.join(hints)}")
            changes[key] = _parsed(text, getattr(settings, key), key)
        return dataclasses.replace(settings, **changes)


def _parsed(text: str, current: Any, key: str) -> Any:
    """Read `text` as a value of the same type as `current`."""
    if isinstance(current, str):
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError as err:
        raise ConfigError(f"setting {key}: {text!r} is not a {type(current).__name__}, for example {current!r}") from err
    if isinstance(current, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(current):
        raise ConfigError(f"setting {key}: {text!r} is a {type(value).__name__}, expected {type(current).__name__} such as {current!r}")
    return value


def run_recipe(recipe: Recipe, context: Context) -> Outcome:
    """Run and record: settings, data hash, metrics. A finished run folder tells everything about itself."""
    context.run_dir.mkdir(parents=True, exist_ok=True)
    described = {
        "recipe": recipe.name,
        "settings": dataclasses.asdict(context.settings),
        "material": context.material.description,
        "material_sha256": context.material.faces.sha256(),
    }
    (context.run_dir / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    outcome = recipe.run(context)
    document = {**described, "metrics": dict(outcome.metrics), "artefacts": list(outcome.artefacts)}
    (context.run_dir / "outcome.json").write_text(json.dumps(document, indent=2) + "\n")
    return outcome
