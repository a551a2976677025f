"""Section of the report on the networks of trained models: whom they saw, and how their training went."""

from __future__ import annotations

from html import escape
from typing import Any

from multiqc.plots import linegraph

from predictgbm.report.formatting import MISSING, details, model_cell, number, table
from predictgbm.report.results import Results


def trained_on_simulated(results: Results) -> list[str]:
    """Return the titles of models whose networks learned from simulated patients."""
    return [results.styles[name].title for name, card in results.cards.items() if card.get("simulated")]


def validation_losses(card: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Return the validation loss by epoch of each network that was trained in several."""
    losses = {
        name: {epoch: pair[1] for epoch, pair in enumerate(network["history"], 1) if pair[1] is not None}
        for name, network in card["networks"].items()
    }
    return {name: line for name, line in losses.items() if len(line) > 1}


def section(results: Results) -> tuple[str, str] | None:
    """Section with whom the networks of trained models saw, and how their training went."""
    if not results.cards:
        return None
    summary, rows = [], []
    for name, card in results.cards.items():
        own = card["networks"]
        patients = {
            p for network in own.values() for part in ("training", "validation") for p in network[part]
        }
        scored = {row["patient"] for row in results.tables["metrics"] if row["model"] == name}
        summary.append(
            [
                model_cell(results, name),
                len(own),
                f"{len(patients)}{' (simulated)' if card.get('simulated') else ''}",
                len(scored & set(card["cohorts"])),
                len(scored - set(card["cohorts"])),
                ", ".join(f"{key} {value}" for key, value in (card.get("settings") or {}).items()) or MISSING,
                card.get("code"),
            ]
        )
        for network, about in own.items():
            best = about["history"][(about.get("best_epoch") or 1) - 1] if about["history"] else [None, None]
            rows.append(
                [
                    model_cell(results, name),
                    network,
                    len(about["training"]),
                    len(about["validation"]),
                    len(about["history"]),
                    about.get("best_epoch"),
                    *(number(loss, 3) for loss in best),
                    about.get("device"),
                ]
            )
    how = (
        "These models learned from patients whose recurrence is known; every patient scored here was told by "
        "networks that never saw him or her, neither in training nor in choosing when it ended."
    )
    head = [
        "Model",
        "Networks",
        "Patients learned from",
        "Scored, of its cohort",
        "Scored, new",
        "Settings",
        "Version",
    ]
    detail = [
        "Model",
        "Network",
        "Training",
        "Validation",
        "Epochs",
        "Best epoch",
        "Loss",
        "Validation loss",
        "Device",
    ]
    return how, table(head, summary, (0, 5)) + details(
        "Every network", table(detail, rows, (0, 1, 8), sortable=True)
    )


def plot(results: Results) -> Any:
    """Return the validation losses as MultiQC's own line plot; None if no network was trained in several epochs."""
    curves = {name: lines for name, card in results.cards.items() if (lines := validation_losses(card))}
    if not curves:
        return None
    titles = [escape(results.styles[name].title, quote=False) for name in curves]
    return linegraph.plot(
        list(curves.values()),
        pconfig={
            "id": "predictgbm_training",
            "title": "Training: loss on the patients who decide when it ends",
            "xlab": "Epoch",
            "ylab": "Validation loss",
            "height": 420,
            "tt_label": "epoch %{x:.0f}: %{y:.3f}",
            "style": "lines",
            "smooth_points": None,
            "series_label": "networks",
            "data_labels": [{"name": title, "ylab": "Validation loss"} for title in titles],
        },
    )
