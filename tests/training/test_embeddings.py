"""The embedding SVM: the tensors score as scikit-learn does, through a bundle too."""

import cv2
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from detect_core.bundle import CropSpec, load_net, save_bundle
from detect_core.nets import build_net
from training.embedding_plots import draw_embeddings
from training.embeddings import fit_svm
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


def test_one_class_is_refused():
    x, y = blobs(40, 0)
    with pytest.raises(DataError, match="both classes"):
        fit_svm(x, np.zeros(40, np.int64), x, y)


def test_every_picture_of_the_study_is_drawn_with_its_numbers(tmp_path):
    x, y = blobs(40, 0)
    head = fit_svm(x, y, x, y, num_components=3)
    names = draw_embeddings(head, x, y, tmp_path, title="toy", seed=0)
    assert names == ["pca.png", "pca.csv", "contours.png", "hexbin.png", "violins.png", "tsne.png", "tsne.csv"]
    for name in names:
        if name.endswith(".png"):
            picture = cv2.imread(str(tmp_path / name))
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20, name  # more than axes and a title
    table = np.loadtxt(tmp_path / "pca.csv", delimiter=",", skiprows=1)
    scaled = (x - x.mean(0)) / x.std(0)
    expected = scaled @ head.components.numpy().T
    assert (tmp_path / "pca.csv").read_text().startswith("pc1,pc2,pc3,label")
    assert np.allclose(table[:, :3], expected, atol=1e-4)
    assert table[:, 3].tolist() == y.tolist()
    assert np.loadtxt(tmp_path / "tsne.csv", delimiter=",", skiprows=1).shape == (40, 3)


def test_a_net_that_gives_one_point_and_few_pictures_still_draws(tmp_path):
    x, y = blobs(40, 0)
    head = fit_svm(x, y, x, y, num_components=3)
    names = draw_embeddings(head, np.ones((8, x.shape[1])), np.arange(8) % 2, tmp_path, title="toy", seed=0)
    assert names == ["pca.png", "pca.csv", "contours.png", "hexbin.png", "violins.png"]
    one = fit_svm(x, y, x, y, num_components=1)
    assert draw_embeddings(one, x, y, tmp_path, title="toy", seed=0) == ["pca.csv", "violins.png", "tsne.png", "tsne.csv"]
