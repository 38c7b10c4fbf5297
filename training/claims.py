"""What the studies claimed, and how our runs answer. Every figure comes from a run's outcome; none is typed in here but theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Metrics = Mapping[str, Any]
Answer = tuple[str, str]
"""Our figures in words, and what they say about the claim."""
HOLDS: Final = "holds here"
FAILS: Final = "does not hold here"
OPEN: Final = "not decided"
MARGIN: Final = 0.05
"""Differences of AUC below this are noise: about half a 95 % interval on 600 test faces."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of a study."""

    study: str
    text: str
    published: str
    """Their figures, as far as there are any."""
    recipes: tuple[str, ...]
    """Whose outcomes answer it."""
    answer: Callable[[Mapping[str, Metrics]], Answer]
    enough: tuple[str, ...] = ()
    """Recipes that already allow an answer; all of them when empty."""


def _f(value: Any, digits: int = 3) -> str:
    return f"{float(value):.{digits}f}"


def _decided(difference: float, margin: float) -> str:
    """Whether a wanted positive difference is there; within the margin nothing is decided."""
    return HOLDS if difference > margin else FAILS if difference < -margin else OPEN


def _raw_against_reconstruction(prefix: str) -> Callable[[Mapping[str, Metrics]], Answer]:
    names = {f"{prefix}_raw": "raw", f"{prefix}_reconstruction": "N = 1", f"{prefix}_reconstruction_n4": "N = 4"}

    def answer(m: Mapping[str, Metrics]) -> Answer:
        told = "; ".join(f"{w}: AUC {_f(m[n]['test_auc'])}, accuracy {_f(m[n]['test_accuracy'])}" for n, w in names.items() if n in m)
        passed = [float(m[n]["test_auc"]) for n in names if n in m and not n.endswith("_raw")]
        return told, _decided(max(passed) - float(m[f"{prefix}_raw"]["test_auc"]), MARGIN)

    return answer


def _adversarial(m: Mapping[str, Metrics]) -> Answer:
    run = m["dcgan_classifier"]
    mean, spread, seeds = run["unseen_auc_difference_mean"], run["unseen_auc_difference_std"], int(run["num_seeds"])
    plain, other = run["plain_unseen_auc_mean"], run["adversarial_unseen_auc_mean"]
    told = f"unseen generator: plain {_f(plain)}, adversarial {_f(other)}; difference {mean:+.3f} +- {_f(spread)} over {seeds} seeds"
    return told, _decided(float(mean), 2 * float(spread) / max(1, seeds) ** 0.5)


def _spectrum(m: Mapping[str, Metrics]) -> Answer:
    spectrum, pixels = m["autogan_spectrum"], m["autogan_spectrum_pixels"]
    told = f"spectrum AUC {_f(spectrum['test_auc'])}, pixels AUC {_f(pixels['test_auc'])} on the upsampler trained on"
    return told, _decided(float(spectrum["test_auc"]) - float(pixels["test_auc"]), MARGIN)


def _one_net(name: str) -> Callable[[Mapping[str, Metrics]], Answer]:
    def answer(m: Mapping[str, Metrics]) -> Answer:
        run = m[name]
        told = f"AUC {_f(run['test_auc'])}, AP {_f(run['test_ap'])}, accuracy {_f(run['test_accuracy'])}"
        return told, "reached here" if float(run["test_auc"]) >= 0.9 else "not reached at this length"

    return answer


NETS: Final = ("vggface16", "densenet121", "cnn6", "cnn5", "meso4")


def _svm(m: Mapping[str, Metrics]) -> Answer:
    told = "; ".join(f"{n}: SVM {_f(m[n]['svm_test_auc'])}, sigmoid {_f(m[n]['test_auc'])}" for n in NETS if n in m)
    differences = [float(m[n]["svm_test_auc"]) - float(m[n]["test_auc"]) for n in NETS if n in m]
    return told, _decided(sum(differences) / len(differences), MARGIN)


def _learning_rate(m: Mapping[str, Metrics]) -> Answer:
    names = ("dcgan_baseline", "dcgan_lr2e4", "dcgan_lr3e4")
    told = "; ".join(
        f"{n}: kernel distance {_f(m[n]['kernel_distance'], 4)}, spread of G loss {_f(m[n]['loss_std'])}, "
        f"collapse {_f(m[n]['collapse_score'], 2)}"
        for n in names
    )
    rest = min(float(m[n]["kernel_distance"]) for n in names[:2])
    return told, _decided(rest - float(m["dcgan_lr3e4"]["kernel_distance"]), 0.002)


def _told(run: Metrics) -> str:
    diverged = " (diverged)" if run["diverged"] and float(run["test_auc"]) < 0.55 else ""
    return f"log-loss {_f(run['test_log_loss'])}, accuracy {_f(run['test_accuracy'])}, AUC {_f(run['test_auc'])}{diverged}"


def _baseline(m: Mapping[str, Metrics]) -> Answer:
    run = m["cnn_baseline"]
    return _told(run), HOLDS if abs(float(run["test_auc"]) - 0.5) < 0.05 else FAILS


def _repaired(m: Mapping[str, Metrics]) -> Answer:
    first, fixed = m["cnn_baseline"], m["cnn_baseline_fixed"]
    return f"repaired: {_told(fixed)}; as published: AUC {_f(first['test_auc'])}", _decided(
        float(fixed["test_auc"]) - float(first["test_auc"]), 0.02
    )


def _xception(m: Mapping[str, Metrics]) -> Answer:
    xception, fixed = m["xception_transfer"], m["cnn_baseline_fixed"]
    told = (
        f"Xception from scratch: AUC {_f(xception['test_auc'])}, accuracy {_f(xception['test_accuracy'])}; "
        f"repaired CNN: AUC {_f(fixed['test_auc'])}"
    )
    return told, _decided(float(xception["test_auc"]) - float(fixed["test_auc"]), MARGIN)


def _overconfident(m: Mapping[str, Metrics]) -> Answer:
    run = m["xception_transfer"]
    told = f"ECE {_f(run['test_ece'])} before, {_f(run['calibrated_test_ece'])} after one temperature fitted on validation"
    return told, HOLDS if float(run["calibrated_test_ece"]) <= float(run["test_ece"]) + 1e-9 else FAILS


def _face_swap(m: Mapping[str, Metrics]) -> Answer:
    run = m["face_swap_gan"]
    told = (
        f"reconstruction PSNR {_f(run['psnr_db'], 1)} dB, mean mask {_f(run['mask_mean'], 2)}, "
        f"{int(run['accepted'])} of {int(run['made'])} fakes passed the checks"
    )
    return told, HOLDS if int(run["accepted"]) else FAILS


def _ablation(m: Mapping[str, Metrics]) -> Answer:
    run = m["xception_ablation"]
    return f"best of {int(run['cells'])} cells: {run['best']} (valid log-loss {_f(run['best_log_loss'])})", (
        HOLDS if str(run["best"]).startswith("sgd 0.01") else FAILS
    )


_S0, _S1, _S2, _S3, _S4 = "AutoGAN study", "CNN comparison study", "DCGAN study", "Face-swap study", "Xception study"
_BETTER = "Passing both classes through an adversarial autoencoder makes them easier to tell apart"

CLAIMS: Final[Sequence[Claim]] = (
    Claim(_S4, "The custom CNN stays at chance", "accuracy 49.6 %, loss .694", ("cnn_baseline",), _baseline),
    Claim(
        "Ours, on the Xception study",
        "That is a failure of its training: batch norm and global pooling repair it",
        "first-epoch loss near 275, then ln 2",
        ("cnn_baseline", "cnn_baseline_fixed"),
        _repaired,
    ),
    Claim(
        _S0,
        f"{_BETTER} (AlexNet)",
        "raw 99.9 %, N = 1 90.9 %, N = 4 92.8 % validation accuracy",
        ("autogan_alexnet_raw", "autogan_alexnet_reconstruction", "autogan_alexnet_reconstruction_n4"),
        _raw_against_reconstruction("autogan_alexnet"),
        enough=("autogan_alexnet_raw", "autogan_alexnet_reconstruction"),
    ),
    Claim(
        _S0,
        "An adversarially trained classifier generalises better to an unseen generator",
        "no figure",
        ("dcgan_classifier",),
        _adversarial,
    ),
    Claim(_S1, "cnn5 reaches AUC .9956", "AUC .9956, AP .9954, accuracy .95", ("cnn5",), _one_net("cnn5")),
    Claim(_S1, "cnn6 reaches AUC .9858", "AUC .9858, AP .9852, accuracy .91", ("cnn6",), _one_net("cnn6")),
    Claim(_S1, "Meso4 as the third custom net", "not given", ("meso4",), _one_net("meso4")),
    Claim(_S1, "DenseNet-121 reaches AUC .9924", "AUC .9924, AP .9915, accuracy .92", ("densenet121",), _one_net("densenet121")),
    Claim(_S1, "VGGFace16 reaches AUC .9601", "AUC .9601, AP .9326, accuracy .95", ("vggface16",), _one_net("vggface16")),
    Claim(_S1, "An SVM on PCA-50 of the embeddings beats the sigmoid head", "no figure", NETS, _svm, enough=("cnn5",)),
    Claim(
        _S2,
        "A learning rate of 3e-4 is best; the baseline's loss varies drastically",
        "pictures only",
        ("dcgan_baseline", "dcgan_lr2e4", "dcgan_lr3e4"),
        _learning_rate,
    ),
    Claim(_S4, "Xception beats the CNN", "accuracy 82.7 % against 49.6 %", ("xception_transfer", "cnn_baseline_fixed"), _xception),
    Claim(
        _S4,
        "The study's Xception was overconfident: temperature scaling lowers the calibration error",
        "validation loss .5 -> 1.15 while training accuracy reached .99",
        ("xception_transfer",),
        _overconfident,
    ),
    Claim(
        "Zhang et al. 2019",
        "The log spectrum shows upsampling better than pixels do",
        "state of the art on CycleGAN (no table seen)",
        ("autogan_spectrum", "autogan_spectrum_pixels"),
        _spectrum,
    ),
    Claim(
        _S3,
        "Shared encoder, two masked decoders and two discriminators give usable swaps",
        "none published",
        ("face_swap_gan",),
        _face_swap,
    ),
    Claim(_S4, "SGD with a learning rate of .01 is the best row of the ablation", "accuracy .82", ("xception_ablation",), _ablation),
    Claim(
        _S0,
        f"{_BETTER} (the study's own CNN)",
        "see AlexNet",
        ("autogan_cnn_raw", "autogan_cnn_reconstruction", "autogan_cnn_reconstruction_n4"),
        _raw_against_reconstruction("autogan_cnn"),
        enough=("autogan_cnn_raw", "autogan_cnn_reconstruction"),
    ),
)
