"""Ours beside the usual loop, and both beside what the machine must spend: same clip, same net, one run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import torch
from facenet_pytorch import MTCNN

from detect_core.bundle import CropSpec, save_bundle
from detect_core.calibration import BundleSet, load_bundle_set
from detect_core.nets import build_net
from detect_core.options import ScreeningOptions
from detect_core.pipeline import Screener
from detect_core.video.decode import DecodeSession

from ..screener import idle_cores
from .measure import Bench, Ran, Spent
from .stock_process import run_stock

NUM_FRAMES: Final = 32
XCEPTION_PX: Final = 224
MIN_FACE_PX: Final = 20.0
"""Of the 640-pixel pictures: what the pipeline asks for on a 1080p video."""


def bench_options() -> ScreeningOptions:
    """Options of every measured screening."""
    return ScreeningOptions(num_frames=NUM_FRAMES, thumbnails=False)


@contextmanager
def whole_look(screener: Screener) -> Iterator[Screener]:
    """The same screener without its first look, so that every clip gets all its frames whatever its score."""
    before = screener.options
    screener.options = replace(before, first_look=None)
    try:
        yield screener
    finally:
        screener.options = before


def screen(screener: Screener, path: Path) -> Any:
    """Judge one file."""
    with path.open("rb") as file:
        return screener.screen(file)


def ran(screener: Screener, path: Path) -> Ran:
    """Judge one file and say what it cost."""
    verdict = screen(screener, path)
    return Ran(verdict.stage_seconds, verdict.cpu_seconds)


def compare(bench: Bench, clip: Path, default: Screener, place: Path) -> None:
    """All rows of the comparison with the stock loop and with the floor."""
    torch.manual_seed(0)
    net = build_net("xception")
    same = Screener(timing_set(net, place), options=bench_options(), precision="auto", decode_threads=idle_cores())
    engine = same.engine.detectors["xception"]
    bench.detail["xception_runs_in"] = engine.precision
    bench.say("ours and the usual loop in turn: the same Xception (random weights, only its time counts), the default bundles ...")
    stock: dict[bool, Spent] = {}
    ours: dict[str, Spent] = {}
    crops = list(np.random.default_rng(0).integers(0, 255, (NUM_FRAMES, XCEPTION_PX, XCEPTION_PX, 3), np.uint8))

    def classify() -> None:
        same.engine.logits("xception", crops, deadline=float("inf"), cancel=None)

    for _ in range(bench.repeats):
        for kept in (False, True):
            said = run_stock(clip, num_frames=NUM_FRAMES, size_px=XCEPTION_PX, threads=torch.get_num_threads(), keep_memory=kept)
            stock[kept] = _cheaper(stock.get(kept), Spent(**said))
        once = Bench(repeats=1, console=bench.console)
        for name, spent in once.interleaved(
            {
                "xception": lambda: ran(same, clip),
                "default": lambda: ran(default, clip),
                "decode": lambda: decode_by_plan(clip),
                "decode all": lambda: decode_all(clip),
                "classify": classify,
            }
        ).items():
            ours[name] = _cheaper(ours.get(name), spent)
    same.close()
    for name, spent in {"stock": stock[False], "stock, our allocator": stock[True], **ours}.items():
        bench.detail[name] = spent.as_json()
    _ratio(bench, "stock loop / ours, same Xception@224, 32 frames", stock[False], ours["xception"], at_least=6)
    _ratio(bench, "stock loop with our allocator / ours, same Xception", stock[True], ours["xception"], at_least=4)
    _ratio(bench, "stock loop / ours, default bundles", stock[False], ours["default"], at_least=15)
    _floor(bench, net, ours)
    bench.row("decoding everything / decoding by plan, CPU", ours["decode all"].cpu_seconds / ours["decode"].cpu_seconds, "x")
    _face_detection(bench, clip, default)


def _cheaper(before: Spent | None, now: Spent) -> Spent:
    if before is None:
        return now
    stages = now.stages if now.wall_seconds < before.wall_seconds else before.stages
    return Spent(min(now.wall_seconds, before.wall_seconds), min(now.cpu_seconds, before.cpu_seconds), stages)


def _ratio(bench: Bench, what: str, peer: Spent, ours: Spent, *, at_least: float) -> None:
    bench.row(what, peer.wall_seconds / ours.wall_seconds, "x", at_least=at_least)
    bench.row(f"{what}, CPU seconds", peer.cpu_seconds / ours.cpu_seconds, "x", at_least=at_least, judged=False)


def _floor(bench: Bench, net: torch.nn.Module, ours: dict[str, Spent]) -> None:
    flops = count_flops(net)
    roofs = {str(dtype).removeprefix("torch."): matmul_roof(bench, dtype) for dtype in (torch.float32, torch.bfloat16)}
    roof = max(roofs.values())
    multiply = NUM_FRAMES * flops / roof
    floor = ours["decode"].wall_seconds + multiply
    floor_cpu = ours["decode"].cpu_seconds + multiply * torch.get_num_threads()
    bench.detail["floor"] = {"xception_flop": flops, "matmul_flop_per_second": roofs, "seconds": floor, "cpu_seconds": floor_cpu}
    bench.row("ours with Xception / floor (decode by plan alone + matmul roof)", ours["xception"].wall_seconds / floor, "x", at_most=1.25)
    bench.row("the same in CPU seconds", ours["xception"].cpu_seconds / floor_cpu, "x", at_most=1.25, judged=False)
    classify = ours["classify"].cpu_seconds
    bench.row("Xception's arithmetic at the matmul roof / its CPU seconds", multiply * torch.get_num_threads() / classify, "of 1")


def _face_detection(bench: Bench, clip: Path, default: Screener) -> None:
    """Ours against facenet-pytorch's own batched call on the same pictures, long side 640."""
    with clip.open("rb") as file, DecodeSession(file, options=bench_options()) as session:
        session.open()
        images = [frame.image_hwc for frame in session.next_frames(NUM_FRAMES)[0]]
    published = MTCNN(keep_all=True, min_face_size=int(MIN_FACE_PX))
    published_40 = MTCNN(keep_all=True, min_face_size=40)

    def ours() -> None:
        default.engine.find_faces(images, min_face_px=MIN_FACE_PX, deadline=float("inf"), cancel=None)

    def as_published(detector: MTCNN) -> Callable[[], None]:
        def run() -> None:
            detector.detect(np.stack(images))

        return run

    spent = bench.interleaved(
        {
            "ours": ours,
            "published": as_published(published),
            "published, from 40 px": as_published(published_40),
        }
    )
    for name, each in spent.items():
        bench.detail[f"faces per frame, {name}"] = {
            "wall_ms": 1e3 * each.wall_seconds / NUM_FRAMES,
            "cpu_ms": 1e3 * each.cpu_seconds / NUM_FRAMES,
        }
    bench.row("face detection per frame", 1e3 * spent["ours"].wall_seconds / NUM_FRAMES, "ms")
    bench.row(
        "MTCNN batched as published, same smallest face / ours",
        spent["published"].wall_seconds / spent["ours"].wall_seconds,
        "x",
        at_least=5,
    )
    coarse = spent["published, from 40 px"].wall_seconds / spent["ours"].wall_seconds
    bench.row("MTCNN batched as published, looking from twice the size / ours", coarse, "x", at_least=5, judged=False)


def timing_set(net: torch.nn.Module, place: Path) -> BundleSet:
    """A set around a net with random weights, for its time only; nothing it says is kept."""
    bundle = save_bundle(
        place / "xception",
        net,
        name="xception",
        version="timing-only",
        detector="xception",
        net="xception",
        net_options={},
        crop=CropSpec(size_px=XCEPTION_PX, margin=1.3),
        temperature=1.0,
        card={},
    )
    document = {
        "schema": "bundle_set/1",
        "name": "timing-only",
        "bundles": [{"name": "xception", "path": "xception", "sha256": bundle.sha256}],
        "fusion": {"kind": "max"},
        "strategy": "best_window/1",
        "beta": 0.0,
        # random weights give logits near zero: kept away from the thresholds, where videos are scored twice
        "platt": {"a": 1.0, "c": -4.0},
        "thresholds": {"t_review": 0.5, "t_fake": 0.9},
        "protocol": {"date": "none"},
    }
    path = place / "timing.json"
    path.write_text(json.dumps(document))
    return load_bundle_set(path)


def decode_by_plan(path: Path) -> Ran:
    """Decode what a screening decodes, in as many threads, and nothing else."""
    with path.open("rb") as file, DecodeSession(file, options=bench_options(), threads=idle_cores()) as session:
        session.open()
        more = True
        while more:
            _frames, more = session.next_frames(NUM_FRAMES)
            session.release()
        return Ran({}, session.cpu_seconds)


def decode_all(path: Path) -> Ran:
    """Decode every frame in one thread, keep nothing."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass
    return Ran()


def count_flops(net: torch.nn.Module) -> float:
    """Arithmetic of one crop."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.eval()(torch.zeros(1, 3, XCEPTION_PX, XCEPTION_PX))
    return float(counter.get_total_flops())


def matmul_roof(bench: Bench, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product."""
    size = 1536
    a, b = torch.rand(size, size).to(dtype), torch.rand(size, size).to(dtype)
    return 2 * size**3 / bench.seconds(lambda: torch.mm(a, b))
