"""Which real stands beside a labelled fake."""

import pytest
import torch
from training_faces import make_pack

from training.augment import AugmentConfig
from training.errors import ConfigError
from training.face_pack import concatenate
from training.labelled import LabelledSource, MixConfig
from training.simulators.blends import SelfBlend


@pytest.fixture(scope="module")
def pack():
    reals = make_pack(20, seed=1)
    fakes = make_pack(20, seed=2, label=1, first_group=50)
    return concatenate([reals, fakes.take([i for i, row in enumerate(fakes.rows) if row.source == "source1"])])


def sources_beside(pack, share):
    source = LabelledSource(pack, SelfBlend(), config=MixConfig(size_px=48, work_px=64, matched_share=share), augment=AugmentConfig())
    generator = torch.Generator().manual_seed(0)
    fakes = torch.multinomial(source.fakes, 200, replacement=True, generator=generator)
    reals = torch.multinomial(source.reals, 200, replacement=True, generator=generator)
    found = source._matched(reals, fakes, generator)
    assert all(pack.rows[int(i)].label == 0 for i in found)
    return [pack.rows[int(i)].source for i in found]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.5), (0.6, 0.8), (1.0, 1.0)])
def test_a_share_of_reals_comes_from_the_source_of_the_fake(pack, share, expected):
    found = sources_beside(pack, share)
    assert found.count("source1") / len(found) == pytest.approx(expected, abs=0.08)


def test_a_source_without_reals_stands_beside_any(pack):
    only_fakes = [i for i, row in enumerate(pack.rows) if row.label or row.source == "source0"]
    assert set(sources_beside(pack.take(only_fakes), 1.0)) == {"source0"}


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ConfigError, match="matched_share"):
        MixConfig(matched_share=1.5)
