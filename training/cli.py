"""`veriframe-train`: list, run, evaluate, calibrate, export."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.console import Console
from rich.table import Table

from detect_core.bundle import Bundle, load_bundle, load_net
from detect_core.errors import DetectCoreError

from .errors import ConfigError, DataError
from .import_checkpoint import commands as import_commands
from .manifest_cli import manifest_app

if TYPE_CHECKING:
    from .scorers import TrackLines
    from .video_scores import VideoLogits

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train, evaluate, calibrate and export detectors.")
app.add_typer(manifest_app, name="manifest")
app.add_typer(import_commands)
console = Console(markup=False, emoji=False)  # names of files and messages are printed as they are

FacesOption = Annotated[Path | None, typer.Option("--faces", help="Folder of face crops with index.csv.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Manifest (see `manifest build`), or the folder of a data set.")]
VideosOption = Annotated[Path | None, typer.Option("--videos", help="Folder of videos with MANIFEST.tsv.")]
BesideOption = Annotated[Path | None, typer.Option("--beside", help="Bundle that is scored on the same videos, to compare with.")]
FoldsOption = Annotated[
    Path | None,
    typer.Option("--folds", help="Run folder of the temporal recipe, to judge each video by a line that did not learn from it."),
]
UnseenOption = Annotated[
    bool, typer.Option("--unseen", help="The detectors of whole tracks learned from none of these videos: no --folds are needed.")
]
NearOption = Annotated[
    Literal["warn", "refuse", "drop"],
    typer.Option("--near-duplicates", help="Nearly equal faces in two splits: warn, refuse, or drop the side that is learned from."),
]
CacheOption = Annotated[Path, typer.Option("--cache", help="Where faces cut from videos are kept.")]
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
THREADS_HELP = "CPU threads of the training; all cores by default."


@app.command("list")
def list_recipes() -> None:
    """Show every recipe."""
    from .recipes import RECIPES, get_recipe

    table = Table("recipe", "study", "what", "presets")
    for name in RECIPES:
        recipe = get_recipe(name)
        table.add_row(name, recipe.study, recipe.summary, ", ".join(recipe.presets))
    console.print(table)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="Name from `list`.")],
    preset: Annotated[str, typer.Option(help="smoke, cpu or gpu.")] = "cpu",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change one setting: key=value.")] = None,
    faces: FacesOption = None,
    videos: VideosOption = None,
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<recipe> by default. A killed run continues there.")] = None,
    cache: CacheOption = Path("runs/cache"),
    threads: Annotated[int | None, typer.Option(help=THREADS_HELP)] = None,
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard events into the run folder.")] = False,
    near_duplicates: NearOption = "warn",
) -> None:
    """Train one recipe."""
    import torch

    from .manifest_data import gather
    from .progress import Progress
    from .recipe import Context, run_recipe
    from .recipes import get_recipe

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = get_recipe(recipe)
    settings = chosen.settings(preset, set_ or [])
    material = gather(faces=faces, videos=videos, data=data, cache=cache, say=console.print).settled(near_duplicates, console.print)
    run_dir = out or Path("runs") / recipe
    console.print(f"{recipe} ({preset}) on {material.description}; run folder {run_dir}")
    with Progress(settings, console) as progress:
        outcome = run_recipe(chosen, Context(settings, material, run_dir, on_log=progress, tensorboard=tensorboard))
    console.print_json(json.dumps(dict(outcome.metrics)))
    console.print(f"finished: {', '.join(str(run_dir / name) for name in outcome.artefacts)}")


@app.command()
def report(
    faces: FacesOption = None,
    videos: VideosOption = None,
    preset: Annotated[str, typer.Option(help="smoke, cpu or gpu.")] = "cpu",
    minutes: Annotated[float, typer.Option(help="Time-box; what does not fit is marked as not run.")] = 120.0,
    only: Annotated[str, typer.Option(help="Recipes to run, comma-separated; all that the claims need by default.")] = "",
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("training/RESULTS.md"),
    runs: Annotated[Path, typer.Option(help="Where the runs are kept; finished ones are not repeated.")] = Path("runs/report"),
    threads: Annotated[int | None, typer.Option(help=THREADS_HELP)] = None,
    near_duplicates: NearOption = "warn",
) -> None:
    """Put every study's claim beside what our runs give."""
    import torch

    from .material import load_material
    from .recipes import get_recipe
    from .results import run_wanted, wanted, write_results

    if threads is not None:
        torch.set_num_threads(threads)
    material = load_material(faces_root=faces, videos_root=videos, on_progress=console.print).settled(near_duplicates, console.print)
    names = wanted()
    chosen = [name for name in names if not only or name in only.split(",")]
    ran = run_wanted(chosen, get_recipe, material, runs, preset=preset, minutes=minutes, say=console.print)
    if only:  # the page still tells what earlier calls finished
        rest = [name for name in names if name not in chosen]
        ran += run_wanted(rest, get_recipe, material, runs, preset=preset, minutes=0, say=console.print)
        ran.sort(key=lambda r: names.index(r.recipe))
    write_results(out, ran, preset=preset, material=material)
    console.print(f"{sum(r.outcome is not None for r in ran)} of {len(ran)} runs; {out} written")


@app.command()
def verify(run_dir: Annotated[Path, typer.Argument(help="A finished run folder of a supervised recipe.")]) -> None:
    """Recompute a run's figures from its saved predictions."""
    from .verify_run import verify_run

    console.print(f"{verify_run(run_dir)} figures follow from {run_dir / 'predictions.csv'}")


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="A finished run folder.")],
    destination: Annotated[Path, typer.Argument(help="Bundle folder to write.")],
    name: Annotated[str, typer.Option(help="Detector name in verdicts and metrics; the run's own by default.")] = "",
    version: Annotated[str, typer.Option(help="Version of the bundle; the run's own by default.")] = "",
) -> None:
    """Verify a run's bundle and copy it where workers look for it; a second one of a kind needs a name of its own in a set."""
    if name and not _PLAIN_NAME.fullmatch(name):
        raise ConfigError(f"tried to name a bundle {name!r}; expected letters, digits, _ and -, for example blend_second")
    source = load_bundle(run_dir / "bundle")
    load_net(source)
    if destination.resolve() == source.root.resolve():
        raise ConfigError(f"tried to write a bundle over the one it is copied from, {destination}; give another folder")
    card = {**source.card, "name": name or source.name, "version": version or source.version}
    destination.mkdir(parents=True, exist_ok=True)
    for stale in destination.glob("*.safetensors"):
        stale.unlink()
    for shard in source.weights:
        shutil.copyfile(source.root / str(shard["file"]), destination / str(shard["file"]))
    (destination / "bundle.json").write_text(json.dumps(card, indent=2) + "\n")
    bundle = load_bundle(destination)
    console.print(f"{bundle.name} {bundle.version} {bundle.sha256[:12]} written to {destination}")


@app.command()
def calibrate(
    videos: Annotated[Path, typer.Option("--videos", help="Folder of videos with MANIFEST.tsv.")],
    bundles: Annotated[Path, typer.Option(help="Folder that holds the bundle folders and gets the set file.")],
    faces: FacesOption = None,
    names: Annotated[str, typer.Option(help="Bundles of the set, comma-separated.")] = "blend,synthesis,autogan,temporal",
    optional: Annotated[str, typer.Option(help="Detectors that may be missing.")] = "xception",
    folds: FoldsOption = None,
    shares: Annotated[str, typer.Option(help="JSON of weights per detector in units of its spread, to change the default ones.")] = "{}",
    headroom: Annotated[float, typer.Option(help="Distance of t_fake above the highest real video, in betas.")] = 2.0,
    set_name: Annotated[str, typer.Option("--name")] = "default",
    date: Annotated[str, typer.Option(help="Date of the calibration, YYYY-MM-DD; today by default.")] = "",
    scores: Annotated[Path, typer.Option(help="Where video scores are kept; reused when the bundles are the same.")] = Path(
        "runs/video_scores.jsonl"
    ),
    beside: BesideOption = None,
    unseen: UnseenOption = False,
) -> None:
    """Fit Platt, crowd correction, thresholds and limits on held-out videos and write the bundle set."""
    import datetime

    from detect_core.calibration import load_bundle_set
    from detect_core.self_test import golden_document, golden_path

    from .calibrate import calibrate as fit
    from .calibrate import default_shares, fading, fit_fades, fit_fusion, set_document
    from .limits import fit_limits

    members = [load_bundle(bundles / name) for name in names.split(",")]
    others = [load_bundle(beside)] if beside is not None else []
    _checked([*members, *others], folds, unseen=unseen)
    scored = _scores(scores, videos, members, folds, faces, others=others)
    wanted = {**default_shares(members), **json.loads(shares)}
    fades = fit_fades(scored, fading(members))
    fusion = replace(fit_fusion([video for video in scored if video.role in ("real", "twin")], wanted), fades=fades)
    reals = [video for video in scored if video.role in ("real", "twin", "still_real")]
    fakes = [video for video in scored if video.role in ("fake", "simulated", "still_fake")]
    fitted = fit(reals, fakes, fusion=fusion, headroom=headroom)
    document = set_document(
        name=set_name,
        bundles=[{"name": b.name, "path": b.root.name, "sha256": b.sha256} for b in members],
        optional=optional.split(",") if optional else [],
        fusion=fusion,
        calibration=fitted,
        limits=fit_limits(scored, fitted.with_fusion(fusion)),
        dataset_sha256=_content_hash(scored),
        date=date or datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    )
    path = bundles / f"{set_name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    loaded = load_bundle_set(path)
    golden_path(path).write_text(json.dumps(golden_document(loaded), indent=2) + "\n")
    console.print(f"{loaded.label} written to {path}")
    console.print_json(
        json.dumps(
            {
                key: document[key]
                for key in ("beta", "platt", "thresholds", "max_disagreement", "max_quantiser", "first_look_clear", "protocol")
            }
        )
    )


@app.command()
def evaluate(
    bundle_set: Annotated[Path | None, typer.Option("--set-file", help="Bundle set; the shipped one by default.")] = None,
    default: Annotated[bool, typer.Option("--default", help="The shipped bundle set, whatever --set-file says.")] = False,
    faces: FacesOption = None,
    videos: VideosOption = None,
    out: Annotated[Path, typer.Option(help="Report to write.")] = Path("reports/evaluation.json"),
    scores: Annotated[Path, typer.Option(help="Where video scores are kept; reused when the bundles are the same.")] = Path(
        "runs/video_scores.jsonl"
    ),
    folds: FoldsOption = None,
    into_cards: Annotated[bool, typer.Option(help="Also write the rows into the bundles' cards.")] = False,
    beside: BesideOption = None,
    left_out: Annotated[Path | None, typer.Option(help="Run folder of cross_generator, to report protocol E1.")] = None,
    unseen: UnseenOption = False,
) -> None:
    """Measure a bundle set on people and generators that no training saw."""
    from detect_core.calibration import DEFAULT_SET, load_bundle_set
    from detect_core.detectors import is_track_bundle, load_detector

    from .bundle_card import add_evaluation
    from .evaluate import Row, beside_rows, evaluate_stills, evaluate_videos, left_out_rows, taught_generators, write_report
    from .evaluation_plots import draw_report, draw_scored
    from .index_faces import both_labels_in_test, read_faces
    from .video_scores import load_scores

    loaded = load_bundle_set(DEFAULT_SET if default or bundle_set is None else bundle_set)
    rows: list[Row] = []
    scored: list[VideoLogits] = []
    others = [load_bundle(beside)] if beside is not None else []
    lines = _checked([*loaded.bundles, *others], folds, unseen=unseen) if videos is not None else None
    if faces is not None:
        pack = read_faces(faces, keep=lambda row: row.split == "test")
        of_crops = [load_detector(bundle) for bundle in loaded.bundles if not is_track_bundle(bundle)]
        rows += evaluate_stills(pack, loaded, of_crops, sources=both_labels_in_test(faces, hand_made=True))
    if videos is not None:
        scored = _scores(scores, videos, loaded.bundles, folds, faces, others=others)
        rows += evaluate_videos(scored, loaded.calibration, taught=taught_generators(loaded.bundles))
        for other in others:
            both = load_scores(scores, hashes={bundle.name: bundle.sha256 for bundle in (*loaded.bundles, other)})
            rows += beside_rows(both, loaded.calibration, other=other.name)
    if left_out is not None:
        rows += left_out_rows(left_out)
    material = ", ".join(str(path.name) for path in (faces, videos) if path is not None)
    write_report(rows, out, bundle_set=loaded, material=material, videos=scored, track_lines=lines)
    if into_cards:
        for bundle in loaded.bundles:
            add_evaluation(
                bundle.root, json.loads(out.read_text())["rows"], beside=[other.name for other in loaded.bundles if other != bundle]
            )
    table = Table("what", "value", "unit", "goal", "pass", "note")
    for row in rows:
        reached = "" if row.passed is None else "yes" if row.passed else "no"
        table.add_row(row.what, f"{row.value:g}", row.unit, row.goal or "", reached, row.note)
    console.print(table)
    console.print(f"{len(rows)} rows written to {out}")
    drawn = draw_report(out) if any(row.what.startswith("AUC: ") for row in rows) else []
    drawn += draw_scored(scored, loaded.calibration, out) if scored else []
    console.print(f"drawn: {', '.join(path.name for path in drawn) or 'nothing, no row is an AUC'}")


@app.command()
def plots(
    report: Annotated[Path, typer.Option(help="Report of `evaluate`.")] = Path("reports/evaluation.json"),
    bundle_set: Annotated[Path | None, typer.Option("--set-file", help="Bundle set; the shipped one by default.")] = None,
    scores: Annotated[Path, typer.Option(help="Video scores that `evaluate` kept.")] = Path("runs/video_scores.jsonl"),
) -> None:
    """Draw the pictures of an evaluation again, from its report and the kept scores, without scoring anything."""
    from detect_core.calibration import DEFAULT_SET, load_bundle_set

    from .evaluation_plots import draw_report, draw_scored
    from .video_scores import load_scores

    drawn = draw_report(report)
    if scores.is_file():
        loaded = load_bundle_set(bundle_set or DEFAULT_SET)
        videos = load_scores(scores, hashes={bundle.name: bundle.sha256 for bundle in loaded.bundles})
        drawn += draw_scored(videos, loaded.calibration, report)
    else:
        console.print(f"no scores at {scores}: ROC and reliability are not drawn; name the file that `evaluate` wrote (--scores)")
    console.print(f"drawn: {', '.join(str(path) for path in drawn)}")


@app.command()
def card(
    report: Annotated[Path, typer.Option(help="Report of `evaluate`.")] = Path("reports/evaluation.json"),
    bundle_set: Annotated[Path | None, typer.Option("--set-file", help="Bundle set; the shipped one by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Card to write; CARD.md beside the set by default.")] = None,
) -> None:
    """Write the card of a bundle set from its evaluation report."""
    from detect_core.calibration import DEFAULT_SET, load_bundle_set

    from .set_card import write_card

    path = bundle_set or DEFAULT_SET
    target = out or path.parent / "CARD.md"
    write_card(load_bundle_set(path), report, target)
    console.print(f"{target} written")


def _checked(bundles: Sequence[Bundle], folds: Path | None, *, unseen: bool) -> TrackLines:
    """How the track detectors will judge the videos, see `track_lines`; asked before anything is scored for hours.

    Raises:
        ConfigError: they would judge what they learned from, or two bundles have one name and their scores could not be told apart.
    """
    from .scorers import track_lines

    twice = [name for name, count in Counter(bundle.name for bundle in bundles).items() if count > 1]
    if twice:
        raise ConfigError(
            f"tried to score with two bundles called {twice[0]}, expected a name of its own for each; write one under another name "
            "(veriframe-train export RUN FOLDER --name NAME)"
        )
    return track_lines(bundles, folds_root=folds, unseen=unseen)


def _scores(
    path: Path, videos: Path, bundles: Sequence[Bundle], folds: Path | None, faces: Path | None, *, others: Sequence[Bundle]
) -> list[VideoLogits]:
    """What the bundles say: kept scores when they are of the same bundles, `others` and material, else new ones of both."""
    from .held_out import material_sha256, score_held_out
    from .video_scores import load_scores, save_scores

    hashes = {bundle.name: bundle.sha256 for bundle in bundles}
    every = {**hashes, **{bundle.name: bundle.sha256 for bundle in others}}
    material = material_sha256(videos, faces_root=faces, folds_root=folds)
    if path.is_file():
        try:
            load_scores(path, hashes=every, material=material)
            console.print(f"scores kept in {path} are used: same bundles, same videos")
            return load_scores(path, hashes=hashes)
        except DataError as err:
            console.print(f"{err}")
    scored = score_held_out(videos, [*bundles, *others], faces_root=faces, folds_root=folds, on_video=console.print)
    save_scores(scored, path, hashes=every, material=material)
    return load_scores(path, hashes=hashes)


def _content_hash(scored: Sequence[VideoLogits]) -> str:
    """Names the videos and splits that a calibration stands on."""
    lines = sorted(f"{video.file} {video.label} {video.split}" for video in scored)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def main() -> None:
    """Console script: typed errors become one sentence and exit code 2."""
    try:
        app(standalone_mode=True)
    except DetectCoreError as err:
        console.print(f"error: {err}", style="red")
        raise SystemExit(2) from err
