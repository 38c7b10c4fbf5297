"""Re-encoded sequences keep order, size and count."""

import numpy as np

from training.reencode import reencode_h264


def test_frames_come_back_in_order_and_close():
    frames = [np.full((64, 64, 3), 20 * i + 40, np.uint8) for i in range(8)]
    out, quantiser = reencode_h264(frames, crf=20)
    assert quantiser is not None
    assert 0 < quantiser < reencode_h264(frames, crf=40)[1]
    assert len(out) == 8
    for before, after in zip(frames, out, strict=True):
        assert after.shape == before.shape
        assert abs(int(after.mean()) - int(before.mean())) <= 4
