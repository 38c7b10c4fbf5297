"""Made-up faces: no crop of a person is needed to test training."""

import cv2
import numpy as np

from training.face_pack import FacePack, FaceRow, build_pack, cut_square

POINTS = np.array([[0.38, 0.42], [0.62, 0.42], [0.5, 0.55], [0.41, 0.66], [0.59, 0.66]], np.float32)


def drawn_face(rng, side=150):
    """A cartoon face on a textured background; the box is the middle 100 pixels."""
    background = cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    skin = tuple(int(v) for v in rng.integers(90, 230, 3))
    centre = (side // 2, side // 2)
    cv2.ellipse(background, centre, (int(side * 0.24), int(side * 0.31)), 0, 0, 360, skin, -1)
    for x, y in POINTS[:2]:
        cv2.circle(background, (int(x * side), int(y * side)), 5, (30, 30, 40), -1)
    cv2.ellipse(background, (side // 2, int(0.66 * side)), (14, 5), 0, 0, 360, (150, 40, 50), -1)
    noise = rng.integers(-12, 13, background.shape)
    return np.clip(background.astype(int) + noise, 0, 255).astype(np.uint8)


def torn_jpeg() -> bytes:
    """The first third of a JPEG: as a file OpenCV reads it, and draws the rest grey."""
    data = cv2.imencode(".jpg", drawn_face(np.random.default_rng(7)))[1].tobytes()
    return data[: len(data) // 3]


def make_pack(count, *, seed=0, split="train", kind="still", label=0, first_group=0) -> FacePack:
    rng = np.random.default_rng(seed)
    crops, landmarks, rows = [], [], []
    for i in range(count):
        image = drawn_face(rng)
        crop, points = cut_square(image, np.array([28, 28, 122, 122], np.float32), POINTS * 150)
        crops.append(crop)
        landmarks.append(points)
        name = f"{split}{label}{kind}{first_group + i}"
        rows.append(FaceRow(f"{name}.png", f"source{i % 2}", label, "toy" if label else "", f"g{name}", split, kind, 94.0))
    return build_pack(crops, landmarks, rows)
