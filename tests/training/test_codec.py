"""The simulated codec against a real one, and its contract on pairs."""

import cv2
import numpy as np
import pytest
import torch

from training.codec import jpeg_tables, random_codec, simulate_h264, simulate_jpeg


def photo(seed=0, side=96):
    """A smooth colourful picture with edges and some texture."""
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    cv2.circle(base, (side // 2, side // 2), side // 4, (200, 150, 120), -1)
    return np.clip(base.astype(int) + rng.integers(-8, 9, base.shape), 0, 255).astype(np.uint8)


def as_batch(*images):
    return torch.stack([torch.from_numpy(i).permute(2, 0, 1).float() / 255 for i in images])


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_is_within_two_grey_levels_of_the_real_one(quality):
    image = photo()
    payload = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    real = cv2.cvtColor(cv2.imdecode(payload, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(float)
    simulated = simulate_jpeg(as_batch(image), torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    own_loss = np.abs(real - image).mean()
    assert np.abs(simulated - real).mean() < 2.0
    assert np.abs(simulated - real).mean() < own_loss


def test_quality_orders_the_loss():
    batch = as_batch(photo(), photo(), photo())
    errors = (simulate_jpeg(batch, torch.tensor([95.0, 60.0, 20.0])) - batch).abs().mean((1, 2, 3))
    assert errors[0] < errors[1] < errors[2]
    errors = (simulate_h264(batch, torch.tensor([18.0, 30.0, 42.0])) - batch).abs().mean((1, 2, 3))
    assert errors[0] < errors[1] < errors[2]


def test_tables_are_those_of_libjpeg():
    luma, chroma = jpeg_tables(torch.tensor([50.0, 100.0]))
    assert luma[0, 0, 0] == 16
    assert chroma[0, 7, 7] == 99
    assert (luma[1] == 1).all()


def test_both_halves_of_a_pair_get_the_same_draw():
    image = as_batch(photo(), photo(1), photo(2))
    out = random_codec(torch.cat([image, image]), generator=torch.Generator().manual_seed(5))
    assert torch.equal(out[:3], out[3:])
    assert not torch.equal(out[:3], image)
    assert out.shape == (6, 3, 96, 96)


def test_odd_sizes_come_back_in_their_size():
    assert simulate_jpeg(torch.rand(1, 3, 45, 61), torch.tensor([70.0])).shape == (1, 3, 45, 61)
