"""What a recipe is: one named experiment with settings, presets and one function that runs it."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import CheckpointError, ConfigError, DivergedError, OutOfMemoryError
from .face_pack import FacePack
from .material import Material
from .run_key import later_defaults
from .run_log import RunLog

OnLog = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Context:
    """What a run gets."""

    settings: Any
    """The recipe's own settings dataclass."""
    material: Material
    run_dir: Path
    on_log: OnLog = lambda _row: None
    tensorboard: bool = False
    """Also write TensorBoard events."""


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
            ConfigError: unknown preset, unknown key, a value of the wrong type, or one that is none of the known ones.
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
            if get_origin(hints[key]) is Literal and changes[key] not in get_args(hints[key]):
                raise ConfigError(f"setting {key}: {changes[key]!r} is not known; give one of {', '.join(map(repr, get_args(hints[key])))}")
        return dataclasses.replace(settings, **changes)


def _parsed(text: str, current: Any, key: str) -> Any:
    """Read `text`, written as JSON, as a value of the same type as `current`."""
    if isinstance(current, str):
        return text
    kind = "list" if isinstance(current, tuple) else type(current).__name__
    try:
        value = json.loads(text)
    except json.JSONDecodeError as err:
        raise ConfigError(f"setting {key}: {text!r} is no {kind} as JSON writes it, for example {json.dumps(current)}") from err
    if isinstance(current, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(current):
        raise ConfigError(f"setting {key}: {text!r} is a {type(value).__name__}, expected {kind} such as {json.dumps(current)}")
    return value


def run_recipe(recipe: Recipe, context: Context) -> Outcome:
    """Run and record: settings, data hash, commit, versions, curves, metrics. A run folder tells everything about itself.

    Raises:
        CheckpointError: the folder holds a run on other material or with other settings; its `config.json` stays as it was.
        DivergedError: a loss is not finite; names the folder.
        OutOfMemoryError: the run needed more memory than there is.
    """
    run_dir = context.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    described = {
        "recipe": recipe.name,
        "settings": dataclasses.asdict(context.settings),
        "material": context.material.description,
        "material_sha256": pack_hash(context.material.faces),
        **surroundings(),
    }
    config = run_dir / "config.json"
    _refuse_other_material(config, described)
    before = config.read_text() if config.is_file() else None
    config.write_text(json.dumps(described, indent=2) + "\n")
    started = time.monotonic()
    with RunLog(run_dir, forward=context.on_log, tensorboard=context.tensorboard) as log:
        try:
            outcome = recipe.run(dataclasses.replace(context, on_log=log))
        except CheckpointError:
            if before is not None:
                config.write_text(before)  # what lies in the folder is still of the earlier settings
            raise
        except DivergedError as err:
            raise DivergedError(f"{run_dir}: {err}; its log.jsonl tells how it came to that") from err
        except (MemoryError, RuntimeError) as err:
            if not _is_out_of_memory(err):
                raise
            raise OutOfMemoryError(
                f"recipe {recipe.name} ran out of memory ({(str(err) or type(err).__name__).splitlines()[0][:160]}); lower batch or pairs and size_px "
                f"(--set batch=...), or use a smaller preset; the run folder {run_dir} keeps what was saved"
            ) from err
    seconds = round(time.monotonic() - started, 1)
    document = {**described, "seconds": seconds, "metrics": dict(outcome.metrics), "artefacts": list(outcome.artefacts)}
    (run_dir / "outcome.json").write_text(json.dumps(document, indent=2) + "\n")
    return outcome


@functools.lru_cache(maxsize=2)
def pack_hash(pack: FacePack) -> str:
    """`FacePack.sha256`, kept for the last two packs: a large one takes seconds."""
    return pack.sha256()


def same_run(recipe: Recipe, context: Context) -> dict[str, Any] | None:
    """The outcome in the run folder when it is of these settings and this material, else None."""
    path = context.run_dir / "outcome.json"
    if not path.is_file():
        return None
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as err:
        raise CheckpointError(f"{path}: not readable ({err}); delete it to run {recipe.name} again") from err
    wanted = json.loads(json.dumps(dataclasses.asdict(context.settings)))
    ran_with = {**later_defaults(type(context.settings)), **document.get("settings", {})}
    same = ran_with == wanted and document.get("material_sha256") == pack_hash(context.material.faces)
    return document if same and document.get("recipe") == recipe.name else None


def surroundings() -> dict[str, Any]:
    """Commit of the code, versions and threads: what else decides the numbers."""
    import platform

    import torch

    home = Path(__file__).resolve().parent
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=home, capture_output=True, text=True, timeout=10, check=False)
        commit = asked.stdout.strip() if asked.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _refuse_other_material(path: Path, described: Mapping[str, Any]) -> None:
    """A run that was begun on some data never goes on with other, or less, data."""
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text())
    except json.JSONDecodeError as err:
        raise CheckpointError(f"{path}: not readable ({err}); delete the run folder to start again") from err
    if before.get("material_sha256") != described["material_sha256"]:
        raise CheckpointError(
            f"{path}: this run was begun on other material ({before.get('material')}; now {described['material']}); "
            "give the same data again, or another run folder (--out)"
        )


def _is_out_of_memory(err: BaseException) -> bool:
    text = str(err).lower()
    return isinstance(err, MemoryError) or "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
