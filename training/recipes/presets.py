"""Three presets out of the one that two CPU cores can carry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..classify import classify
from ..recipe import Recipe
from ..study_data import ClassifySettings


def study_recipe(
    name: str, study: str, summary: str, cpu: ClassifySettings, *, smoke: dict[str, Any], gpu: dict[str, Any] | None = None
) -> Recipe:
    """A supervised recipe.

    Args:
        name: of the recipe.
        study: where it was published.
        summary: one line.
        cpu: minutes on two cores.
        smoke: changes for a run of seconds: small pictures, two steps.
        gpu: changes for the length of the study.
    """
    tiny = replace(cpu, **{"steps": 2, "batch": 8, "autogan_steps": 1, "autogan_ngf": 4, "warmup_head_steps": 0, **smoke})
    long = replace(cpu, **{"batch": max(64, cpu.batch), "autogan_steps": 10_000, "autogan_ngf": 64, **(gpu or {})})
    return Recipe(name=name, study=study, summary=summary, presets={"smoke": tiny, "cpu": cpu, "gpu": long}, run=classify)
