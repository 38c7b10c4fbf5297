"""`veriframe policy`: which threshold a review budget buys, and what it finds."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .terminal import make_console

if TYPE_CHECKING:
    from detect_core.operating_points import HeldOut

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
    from detect_core.operating_points import choose, held_out_of

    from .promotion import bundle_set_in_charge
    from .settings import load_settings

    bundle_set = load_bundle_set(bundle_set_path(bundle_set_in_charge(load_settings(bundle_set=bundles))))
    held_out = held_out_of(bundle_set.document)
    point = choose(
        held_out,
        uploads_per_day=uploads_per_day,
        prevalence=prevalence,
        max_reviews_per_day=max_reviews_per_day,
        reviews_per_person=reviews_per_person,
        cannot_tell_share=cannot_tell_share or 0.0,
    )
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
        why = _why_not(
            held_out,
            uploads=uploads_per_day,
            prevalence=prevalence,
            max_reviews=max_reviews_per_day,
            cannot_tell_share=cannot_tell_share or 0.0,
        )
        make_console(stderr=True, soft_wrap=True).print(f"The budget cannot be promised: {why}", highlight=False)
        raise typer.Exit(1)


def _why_not(held_out: HeldOut, *, uploads: float, prevalence: float, max_reviews: float, cannot_tell_share: float) -> str:
    """Why the reviews stay above the budget, and what would help."""
    from detect_core.operating_points import reals_needed, unavoidable_reviews, upper_bound

    unavoidable = unavoidable_reviews(held_out, uploads_per_day=uploads, prevalence=prevalence, cannot_tell_share=cannot_tell_share)
    if unavoidable >= max_reviews:
        cannot_tell = uploads * cannot_tell_share
        return (
            f"up to {unavoidable:,.0f} reviews a day come without a single false positive and at any threshold, {cannot_tell:,.0f} of them videos "
            f"that end as 'cannot tell'; the budget is {max_reviews:,.0f}. No number of real videos helps: allow more reviews."
        )
    allowed = (max_reviews - unavoidable) / (uploads * (1 - cannot_tell_share) * (1 - prevalence))
    num_real = len(held_out.reals)
    return (
        f"{num_real} held-out real videos bound the false positives by {upper_bound(0, num_real):.2%} at best, "
        f"{max_reviews:,.0f} reviews of {uploads:,.0f} uploads allow {allowed:.3%}. "
        f"Calibrate on at least {reals_needed(allowed):,} real videos of your own."
    )
