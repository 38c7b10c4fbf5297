"""The embedding SVM: the tensors score as scikit-learn does, through a bundle too."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from detect_core.bundle import CropSpec, load_net, save_bundle
from detect_core.nets import build_net
from training.embeddings import draw_scatter, fit_svm
from training.errors import DataError


def blobs(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return rng.normal(size=(count, 12)) * np.linspace(1, 6, 12) + labels[:, None] * 1.5, labels


def test_the_tensor_head_equals_scikit_learn():
    x, y = blobs(120, 0)
    head = fit_svm(x, y, *blobs(60, 1), num_components=6)
    scaled = StandardScaler().fit(x)
    pca = PCA(6, random_state=0).fit(scaled.transform(x))
    svc = SVC(kernel="poly", degree=3, gamma="scale", coef0=0.0).fit(pca.transform(scaled.transform(x)), y)
    fresh, _ = blobs(50, 2)
    expected = svc.decision_function(pca.transform(scaled.transform(fresh)))
    assert np.abs(head.decision(torch.from_numpy(fresh)).numpy() - expected).max() < 1e-6


def test_platt_makes_the_decision_a_logit_with_the_right_sign():
    head = fit_svm(*blobs(200, 0), *blobs(100, 1), num_components=8)
    x, y = blobs(100, 3)
    logits = head(torch.from_numpy(x)).numpy()
    assert ((logits > 0) == y).mean() > 0.7
    assert np.log1p(np.exp(-np.abs(logits))).mean() < 0.69


def test_it_travels_in_a_bundle(tmp_path):
    backbone_options = {"num_blocks": 2}
    backbone = build_net("cnn5", **backbone_options).eval()
    images = torch.rand(40, 3, 16, 16)
    with torch.inference_mode():
        embedded = backbone.embed(images).double().numpy()
    labels = (images.mean((1, 2, 3)) > images.mean()).long().numpy()
    head = fit_svm(embedded, labels, embedded, labels, num_components=4)
    options = {
        "backbone": "cnn5",
        "backbone_options": backbone_options,
        "dim": 32,
        "num_components": 4,
        "num_support": head.support_vectors.shape[0],
    }
    whole = build_net("embedding_svm", **options)
    whole.backbone.load_state_dict(backbone.state_dict())
    whole.head.load_state_dict(head.state_dict())
    crop = CropSpec(size_px=16, margin=1.3)
    bundle = save_bundle(
        tmp_path,
        whole,
        name="svm",
        version="1",
        detector="synthesis",
        net="embedding_svm",
        net_options=options,
        crop=crop,
        temperature=1.0,
        card={},
    )
    loaded = load_net(bundle)
    with torch.inference_mode():
        assert torch.allclose(loaded(images), whole.eval()(images), atol=1e-3)


def test_one_class_is_refused_and_the_plot_has_its_points(tmp_path):
    x, y = blobs(40, 0)
    with pytest.raises(DataError, match="both classes"):
        fit_svm(x, np.zeros(40, np.int64), x, y)
    head = fit_svm(x, y, x, y, num_components=3)
    draw_scatter(head, x, y, tmp_path / "pca.png", title="toy")
    assert (tmp_path / "pca.png").stat().st_size > 1000
    assert len((tmp_path / "pca.csv").read_text().splitlines()) == 41
