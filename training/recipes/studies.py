"""The supervised studies as named settings of one engine, so that their figures can be compared.

AutoGAN study: AlexNet on raw pictures and on reconstructions, and the log-spectrum net of Zhang et al. 2019.
CNN comparison study: VGGFace16, DenseNet-121, cnn5, cnn6 and Meso4. Xception study: the published baseline, its
repaired twin and Xception itself. Expert B: the residual net on reconstructions.
"""

from __future__ import annotations

from dataclasses import replace

from ..classify import ClassifySettings, classify
from ..recipe import Recipe

_AUTOGAN, _EMBEDDING, _XCEPTION, _OURS = "AutoGAN study", "CNN comparison study", "Xception study", "our experts"
_STYLEGAN = ("web140k", "ffhq")


def _recipe(name: str, study: str, summary: str, cpu: ClassifySettings, *, smoke_px: int, gpu_steps: int) -> Recipe:
    """Three presets out of one: `smoke` shrinks pictures and steps, `gpu` lengthens."""
    smoke = replace(cpu, size_px=smoke_px, steps=4, batch=8, autogan_steps=2, autogan_ngf=4)
    gpu = replace(cpu, steps=gpu_steps, batch=max(64, cpu.batch), autogan_steps=10_000, autogan_ngf=64)
    return Recipe(name=name, study=study, summary=summary, presets={"smoke": smoke, "cpu": cpu, "gpu": gpu}, run=classify)


_ALEXNET = ClassifySettings(net="alexnet64", sources=_STYLEGAN, steps=400, optimiser="adam", learning_rate=1e-4, augment=0.0)
_SPECTRUM = ClassifySettings(
    net="spectrum", size_px=128, fakes="reconstruction", upsampler="transposed", steps=250, optimiser="sgd", learning_rate=0.01, augment=0.2
)
_CNN = ClassifySettings(size_px=128, value_range="unit", steps=500, augment=0.3, svm=True)

_ALL = (
    _recipe("autogan_alexnet_raw", _AUTOGAN, "AlexNet, real against StyleGAN faces as they are", _ALEXNET, smoke_px=64, gpu_steps=10_000),
    _recipe(
        "autogan_alexnet_reconstruction",
        _AUTOGAN,
        "the same with both classes passed through the AutoGAN",
        replace(_ALEXNET, through_autogan=True),
        smoke_px=64,
        gpu_steps=10_000,
    ),
    _recipe("autogan_spectrum", _AUTOGAN, "log-FFT ResNet-18 against AutoGAN reconstructions", _SPECTRUM, smoke_px=64, gpu_steps=8000),
    _recipe(
        "vggface16",
        _EMBEDDING,
        "VGG-16 topology with a 2048-wide embedding, from scratch",
        replace(_CNN, net="vggface16", size_px=96, steps=60, batch=16, learning_rate=2e-4),
        smoke_px=32,
        gpu_steps=8000,
    ),
    _recipe(
        "densenet121",
        _EMBEDDING,
        "DenseNet-121 from scratch",
        replace(_CNN, net="densenet121", size_px=96, steps=120, batch=16),
        smoke_px=32,
        gpu_steps=15_000,
    ),
    _recipe("cnn5", _EMBEDDING, "five-block custom CNN", replace(_CNN, net="cnn5"), smoke_px=64, gpu_steps=20_000),
    _recipe("cnn6", _EMBEDDING, "six-block custom CNN", replace(_CNN, net="cnn6", learning_rate=1e-4), smoke_px=64, gpu_steps=20_000),
    _recipe(
        "meso4",
        _EMBEDDING,
        "Meso4, the third custom net and the yardstick",
        replace(_CNN, net="meso4", net_options='{"size_px": 128}'),
        smoke_px=128,
        gpu_steps=20_000,
    ),
    _recipe(
        "cnn_baseline",
        _XCEPTION,
        "the baseline CNN as published (it diverges)",
        replace(_CNN, net="cnn_s4", net_options='{"size_px": 96}', size_px=96, steps=120, learning_rate=0.01, augment=0.0, svm=False),
        smoke_px=96,
        gpu_steps=2500,
    ),
    _recipe(
        "cnn_baseline_fixed",
        _XCEPTION,
        "the baseline CNN with batch norm and global pooling",
        replace(_CNN, net="cnn_s4", net_options='{"size_px": 96, "fixed": true}', size_px=96, steps=200, svm=False),
        smoke_px=96,
        gpu_steps=2500,
    ),
    _recipe(
        "xception_transfer",
        _XCEPTION,
        "Xception from scratch with the study's best optimiser (weights of its own are the user's to give)",
        ClassifySettings(net="xception", size_px=128, steps=60, batch=8, optimiser="sgd", learning_rate=0.01, augment=0.3),
        smoke_px=96,
        gpu_steps=10_000,
    ),
    _recipe(
        "synthesis_npr",
        _OURS,
        "upsampling residual at small crops, real faces against AutoGAN reconstructions",
        ClassifySettings(
            net="npr", net_options='{"width": 32}', size_px=96, fakes="reconstruction", steps=500, learning_rate=2e-4, augment=0.3
        ),
        smoke_px=48,
        gpu_steps=6000,
    ),
)

RECIPES = {recipe.name: recipe for recipe in _ALL}
