"""The same verdict in the shapes of other services, so that a client written for one of them reads ours without a change.

Pure: a `verdict/1` in, JSON values out. What their shape asks for and we did not measure is null or left out, never invented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..messages import VerdictBody
from .coop import coop_items
from .hive import hive_task
from .reality_defender import reality_defender_media, reality_defender_view
from .sensity import sensity_report
from .truemedia import truemedia_analysis

ADAPTERS: Final[dict[str, Callable[[VerdictBody], dict[str, Any]]]] = {
    "hive": hive_task,
    "reality-defender": reality_defender_media,
    "reality-defender-sdk": reality_defender_view,
    "sensity": sensity_report,
    "truemedia": truemedia_analysis,
    "coop": coop_items,
}
"""Name in the address -> the function that writes the shape."""

__all__ = ["ADAPTERS", "coop_items", "hive_task", "reality_defender_media", "reality_defender_view", "sensity_report", "truemedia_analysis"]
