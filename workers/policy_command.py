"""`veriframe policy`: which threshold a review budget buys, and what it finds."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from .terminal import make_console

commands = typer.Typer()


@commands.command()
def policy(
    uploads_per_day: Annotated[float, typer.Option(help="Videos screened per day.")],
    prevalence: Annotated[float, typer.Option(help="Share of them that is manipulated, for example 0.001.")],
    max_reviews_per_day: Annotated[float, typer.Option(help="Videos that people can look at per day.")],
    reviews_per_person: Annotated[float, typer.Option(help="Videos that one person decides per day.")] = 300.0,
    cannot_tell_share: Annotated[
        float | None,
        typer.Option(help="Share of the uploads that end as 'cannot tell' and go to people too, as GET /v1/verdicts or the board shows it"),
    ] = None,
    bundles: Annotated[str | None, typer.Option(help="Bundle set: a path or the name of a shipped one")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object")] = False,
) -> None:
    """Answer with threshold, expected recall, precision and reviewers. Exit 1 when the held-out videos cannot promise the budget."""
    from detect_core.calibration import bundle_set_path, load_bundle_set
    from detect_core.operating_points import choose, held_out_of, reals_needed

    from .promotion import bundle_set_in_charge
    from .settings import load_settings

    bundle_set = load_bundle_set(bundle_set_path(bundle_set_in_charge(load_settings(bundle_set=bundles))))
    point = choose(
        held_out_of(bundle_set.document),
        uploads_per_day=uploads_per_day,
        prevalence=prevalence,
        max_reviews_per_day=max_reviews_per_day,
        reviews_per_person=reviews_per_person,
        cannot_tell_share=cannot_tell_share or 0.0,
    )
    allowed = max_reviews_per_day / uploads_per_day
    if as_json:
        row = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(point).items()}
        sys.stdout.write(json.dumps({"bundle_set": bundle_set.label, **row}) + "\n")
    else:
        table = Table("what", "value", "range at 95 %", title=f"{bundle_set.label}: {point.num_real} held-out real videos")
        table.add_row("threshold on p_fake", f"{point.threshold:.4f}", "")
        table.add_row("false-positive rate", f"{point.fpr:.4f}", f"up to {point.fpr_upper:.4f} (exact bound, {point.num_false} seen)")
        table.add_row("recall on held-out fakes", f"{point.recall:.2f}", f"at least {point.recall_lower:.2f}")
        table.add_row("precision", f"{point.precision:.4f}", f"at least {point.precision_lower:.5f}")
        table.add_row("reviews per day", f"{point.reviews_per_day:,.0f}", f"up to {point.reviews_per_day_upper:,.0f}")
        table.add_row("reviewers needed", "", f"up to {point.reviewers}")
        make_console().print(table)
        if cannot_tell_share is None:
            make_console().print(
                "Not counted: videos that end as 'cannot tell', which people look at too; say how many (--cannot-tell-share)."
            )
    if not point.is_supported:
        needed = f"{reals_needed(allowed):,}" if 0 < allowed < 1 else "more"
        make_console(stderr=True, soft_wrap=True).print(
            f"The budget cannot be promised: {point.num_real} held-out real videos bound the false positives by {point.fpr_upper:.2%} at best here, "
            f"{max_reviews_per_day:,.0f} reviews of {uploads_per_day:,.0f} uploads allow {allowed:.3%}. "
            f"Calibrate on at least {needed} real videos of your own.",
            highlight=False,
        )
        raise typer.Exit(1)
