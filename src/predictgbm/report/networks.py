"""Section of the report on the networks of trained models: whom they saw, and how their training went."""

from __future__ import annotations

from typing import Any

from predictgbm.report.formatting import MISSING, details, downloadable, model_cell, number, table
from predictgbm.report.line_plots import Axis, Curve, line_rows, panels
from predictgbm.report.results import DASHES, PALETTE, ModelStyle, Results


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
    summary, body = [], []
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
            body.append(
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
    every = details("Every network", table(detail, body, (0, 1, 8), sortable=True))
    return how, table(head, summary, (0, 5)) + figures(results) + every


def figures(results: Results) -> str:
    """Return the validation losses by epoch, one figure per model whose networks were trained in several."""
    drawn = []
    for name, card in results.cards.items():
        losses = validation_losses(card)
        if not losses:
            continue
        curves = []
        for place, (network, line) in enumerate(losses.items()):
            dash = DASHES[place // len(PALETTE) % len(DASHES)]
            style = ModelStyle(network, network, PALETTE[place % len(PALETTE)], dash)
            curves.append(Curve(style, list(line.items())))
        values = [loss for line in losses.values() for loss in line.values()]
        ends = Axis("Epoch", 1, max(epoch for line in losses.values() for epoch in line))
        shown = [(results.styles[name].title, curves)]
        height = Axis("Validation loss", min(0.0, *values), max(values) or 1.0)
        drawn.append(
            downloadable(
                results, panels(shown, ends, height, width=620), line_rows(shown), f"training_{name}"
            )
        )
    note = '<p class="gbm-note">Loss on the patients who decide when the training ends.</p>'
    return "".join(drawn) + (note if drawn else "")
