"""What computed a verdict: versions that may change its last digits. Recorded with every verdict, compared when one is replayed."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache
from typing import Final

POLICY: Final = "two-thresholds/4"
"""Name of what `policy.decide` does. Here, because doors ask for it that load no detectors."""
_PACKAGES = ("torch", "numpy", "opencv-python-headless", "av", "facenet-pytorch")


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    import av

    from . import __version__

    return (
        ("veriframe", __version__),
        ("python", platform.python_version()),
        ("machine", platform.machine()),
        ("ffmpeg", str(av.ffmpeg_version_info)),
        *((name, importlib.metadata.version(name)) for name in _PACKAGES),
    )


def runtime_versions(device: str) -> dict[str, str]:
    """Name to version of everything that a score passes through, the device and the threads among them."""
    import torch

    return {**dict(_installed()), "device": device, "threads": str(torch.get_num_threads())}
