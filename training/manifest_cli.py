"""`veriframe-train manifest`: build one from a data set, look at one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

manifest_app = typer.Typer(no_args_is_help=True, help="Build and check manifests: labels, faces, splits without shared people.")
console = Console(markup=False, emoji=False)  # names of files and messages are printed as they are


@manifest_app.command()
def build(
    root: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    out: Annotated[Path, typer.Option(help="CSV to write; its summary lands beside it.")],
    layout: Annotated[
        str, typer.Option(help="splits, two_folders, ffpp, celebdf, dfdc, or pictures (any, all real); recognised by default.")
    ] = "",
    whole: Annotated[bool, typer.Option(help="Take pictures whole (aligned face crops, or no faces at all): look for no face.")] = False,
    resplit: Annotated[bool, typer.Option(help="Forget the splits that the data set gives.")] = False,
    by_file: Annotated[bool, typer.Option(help="Folders below real/ are collections, not people: split by file.")] = False,
    drop_unusable: Annotated[bool, typer.Option(help="Leave out broken and faceless files, and record them.")] = False,
    drop_leaks: Annotated[bool, typer.Option(help="Leave out training files that share something with held-out ones.")] = False,
    num_frames: Annotated[int, typer.Option(help="Faces taken from each video.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
) -> None:
    """Look at every file, split by person and video, check for near-duplicates, write the manifest.

    Layouts splits and two_folders take folders below real/ as people; without any, files are split by file.
    """
    from typing import cast, get_args

    from .errors import ConfigError
    from .layouts import Layout
    from .manifest import BuildOptions, build_manifest
    from .manifest_data import new_detector

    if layout and layout not in get_args(Layout):
        raise ConfigError(f"unknown layout {layout!r}; known: {', '.join(get_args(Layout))}")
    options = BuildOptions(
        layout=cast("Layout", layout) if layout else None,
        whole=whole,
        resplit=resplit,
        by_file=by_file,
        drop_unusable=drop_unusable,
        drop_leaks=drop_leaks,
        seed=seed,
        num_frames=num_frames,
    )
    summary = build_manifest(root, out, options=options, detector=new_detector(), say=lambda line: console.print(line, highlight=False))
    console.print(f"{summary['rows']} rows, {len(summary['left_out'])} left out, {summary['near_duplicates']} near-duplicate pairs")
    console.print_json(json.dumps(summary["counts"]))


@manifest_app.command()
def check(
    manifest: Annotated[Path, typer.Argument(help="A manifest CSV.")],
    probe: Annotated[bool, typer.Option(help="Also try to tell the label from the files alone (stills).")] = False,
) -> None:
    """Verify a manifest's seal and show what it holds and what was left out."""
    from .manifest import near_in, read_summary

    summary = read_summary(manifest)
    with manifest.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    table = Table("split and label", "files")
    for name, count in summary["counts"].items():
        table.add_row(name, str(count))
    console.print(table)
    pairs = near_in(rows)
    across = sum(rows[i]["split"] != rows[j]["split"] for i, j in pairs)
    sides = f"{across} of them across splits: build the manifest again" if across else "all on one side"
    console.print(f"layout {summary['layout']}, {len(pairs)} near-duplicate pairs, {sides}")
    for note in summary.get("notes", ()):  # older manifests have none
        console.print(note, highlight=False)
    for left in summary["left_out"]:
        console.print(f"left out {left['file']}: {left['why']}", highlight=False)
    if probe:
        value = _file_probe(rows, Path(summary["root"]))
        from .probes import MAX_FILE_AUC

        verdict = "fine" if value <= MAX_FILE_AUC else "a detector can learn the files instead of the faces: re-encode both classes alike"
        console.print(f"label told from file size, suffix and quality with AUC {value:.3f} (at most {MAX_FILE_AUC}): {verdict}")


def _file_probe(rows: list[dict[str, str]], root: Path) -> float:
    from .probes import file_features, probe_auc

    stills = [row for row in rows if row["kind"] == "still"]
    features = file_features([root / row["file"] for row in stills])
    return probe_auc(features, [int(row["label"] == "fake") for row in stills], [row["group"] for row in stills])
