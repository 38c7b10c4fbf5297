"""The probes catch a detector that reads files instead of faces, and let an honest one pass."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from training_faces import drawn_face

from detect_core.nets import NETS, build_net
from detect_core.structs import FAKE, REAL
from training.augment import AugmentConfig
from training.errors import DataError
from training.loop import step_generator
from training.pairs import PairConfig, PairSource
from training.probes import blockiness, codec_swap, file_features, probe_auc
from training.simulators.blends import SelfBlend


def faces(count, seed):
    rng = np.random.default_rng(seed)
    return torch.stack([torch.from_numpy(drawn_face(rng, 96)) for _ in range(count)]).permute(0, 3, 1, 2).float() / 255


def jpeg(images, quality=75):
    out = []
    for image in (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy():
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        out.append(torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR)))
    return torch.stack(out).permute(0, 3, 1, 2).float() / 255


def by_blocks(images):
    return [blockiness(255 * image.mean(0).double().numpy()) for image in images]


def by_redness(images):
    return (images[:, 0] - images[:, 2]).mean((1, 2)).numpy()


def test_a_detector_of_jpeg_is_caught_by_the_swap():
    # Given reals stored as jpg and fakes as png, the shortcut of a published loader.
    swap = codec_swap(lambda x: [-v for v in by_blocks(x)], jpeg(faces(30, 0)), faces(30, 1))
    assert swap.as_given > 0.9
    assert not swap.passed


def test_a_detector_of_faces_keeps_its_score():
    reals, fakes = faces(30, 0), faces(30, 1)
    fakes[:, 0] += 0.3
    swap = codec_swap(by_redness, reals, fakes.clamp(0, 1))
    assert swap.as_given > 0.9
    assert swap.passed


def write(folder, images, suffix):
    files = []
    for i, image in enumerate((images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()):
        files.append(folder / f"{suffix}{len(list(folder.iterdir()))}-{i}.{suffix}")
        cv2.imwrite(str(files[-1]), image)
    return files


def test_the_file_probe_tells_a_format_shortcut_from_equal_files(tmp_path):
    labels = [REAL] * 30 + [FAKE] * 30
    groups = [f"p{i}" for i in range(60)]
    trap = write(tmp_path, faces(30, 0), "jpg") + write(tmp_path, faces(30, 1), "png")
    assert probe_auc(file_features(trap), labels, groups) > 0.95
    equal = write(tmp_path, faces(60, 2), "jpg")
    values = [probe_auc(file_features(equal), np.roll(labels, shift).tolist(), groups) for shift in (0, 15, 7)]
    assert np.mean(values) < 0.7
    with pytest.raises(DataError, match="both classes"):
        probe_auc(file_features(equal), [0] * 60, groups)
    (tmp_path / "torn.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"torn\.png"):
        file_features([tmp_path / "torn.png"])


def test_no_file_statistic_tells_the_halves_of_a_pair_apart(toy_pack):
    # Both halves share augmentation and codec: blockiness, noise and brightness must not give the label away.
    source = PairSource(toy_pack, [(SelfBlend(), 1.0)], config=PairConfig(size_px=48, work_px=64), augment=AugmentConfig())
    rows, labels, groups = [], [], []
    for step in range(5):
        real, fake, _, _ = source.draw(20, step_generator(3, step))
        for label, half in ((REAL, real), (FAKE, fake)):
            for i, image in enumerate(half):
                grey = 255 * image.mean(0).double().numpy()
                rows.append([blockiness(grey), blockiness(grey.T), float(grey.mean()), float(grey.max()), float(grey.min())])
                labels.append(label)
                groups.append(f"{step}-{i}")
    assert probe_auc(np.array(rows), labels, groups) < 0.62


class SharedNorm(nn.Module):
    """The fault of a published net: one batch norm behind two convolutions."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.two(self.norm(self.one(x)))).mean((1, 2, 3))


def uses(net, size_px):
    """How often every batch norm runs in one forward pass."""
    counts = {name: 0 for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}

    def count(name):
        def hook(*_):
            counts[name] += 1

        return hook

    for name, module in net.named_modules():
        if name in counts:
            module.register_forward_hook(count(name))
    with torch.inference_mode():
        net.eval()(torch.rand(1, 3, size_px, size_px))
    return counts


SIZES = {"cnn_s0": 64, "dcgan64": 64, "dcgan32": 32, "meso4": 256, "mesoinception4": 256, "cnn5": 64, "cnn6": 64, "densenet121": 64}
OPTIONS = {"cnn_s4": {"fixed": True, "size_px": 64}}


@pytest.mark.parametrize("name", [*SIZES, "cnn_s4"])
def test_every_batch_norm_is_used_once(name):
    counts = uses(build_net(name, **OPTIONS.get(name, {})), SIZES.get(name, 64))
    assert counts
    assert set(counts.values()) == {1}
    assert name in NETS


def test_a_shared_batch_norm_would_be_seen():
    assert set(uses(SharedNorm(), 16).values()) == {2}
