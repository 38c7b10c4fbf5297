"""Read a picture file whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

UNREADABLE: Final = "not a readable picture, or cut short"
"""Why a file gives no picture."""


def read_picture(path: Path) -> NDArray[np.uint8] | None:
    """The pixels (H, W, 3), RGB; None of a file that is no picture or is cut short."""
    data = path.read_bytes() if path.is_file() else b""
    if not data:
        return None
    # From memory: of a torn JPEG file `imread` gives what is there and fills the rest with grey, and says nothing.
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # more pixels than it takes on
        return None
    return None if image is None else np.asarray(image, np.uint8)
