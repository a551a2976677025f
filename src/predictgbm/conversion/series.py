"""Which DICOM series of an exam shows what: recognised from description, contrast agent and sequence parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Columns that a mixed exam folder can fill.
STRUCTURAL = ("t1", "t1c", "t2", "flair")
OPTIONAL = ("adc", "dti", "pet")

#: A series whose extent is below this share of the largest one's shows a part of the head only.
PARTIAL_EXTENT = 2 / 3
#: A series whose largest voxel edge is below this share of all others' is preferred: 3-D before 2-D.
FINER_VOXELS = 2 / 3
#: A b-value that gives diffusion contrast, in s/mm2.
DIFFUSION_WEIGHTED = 400.0


@dataclass(frozen=True)
class Series:
    """One DICOM series, as its headers describe it.

    Attributes
    ----------
    number : int
        Series number; 0 if the header has none.
    description : str
        Series description without words that identify the patient, for tables and messages.
    text : str
        Description, protocol and sequence name in lower case, for recognition only; never written anywhere.
    files : tuple of Path
        Its files.
    modality : str
        ``MR``, ``PT``, ``CT`` ...
    image_type : tuple of str
        DICOM Image Type, upper case.
    sequence : tuple of str
        DICOM Scanning Sequence: ``SE``, ``IR``, ``GR``, ``EP``.
    echo_time, repetition_time, inversion_time : float or None
        In ms.
    agent : str
        Contrast agent of the header, empty if none.
    b_values : tuple of float
        Distinct b-values in s/mm2, ascending; empty if the headers have none.
    shape : tuple of int
        Columns, rows, slices.
    volumes : int
        Images of each slice position.
    spacing : tuple of float
        Voxel size along columns, rows and slices in mm, gaps between slices included.
    thickness : float or None
        Slice thickness in mm.
    fault : str
        Why the series cannot be converted, for example a missing slice; empty if it can.
    """

    number: int
    description: str
    text: str
    files: tuple[Path, ...]
    modality: str = "MR"
    image_type: tuple[str, ...] = ()
    sequence: tuple[str, ...] = ()
    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    agent: str = ""
    b_values: tuple[float, ...] = ()
    shape: tuple[int, int, int] = (0, 0, 0)
    volumes: int = 1
    spacing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    thickness: float | None = None
    fault: str = ""

    @property
    def is_volume(self) -> bool:
        """Whether it is a stack of parallel slices; ``fault`` says why not."""
        return self.shape[2] > 1

    @property
    def derived(self) -> bool:
        """Whether the images were computed from other images, for example reformatted."""
        return "DERIVED" in self.image_type[:1] or "SECONDARY" in self.image_type[1:2]

    @property
    def corrected(self) -> bool:
        """Whether the scanner corrected the distortion by its gradients."""
        return bool({"DIS2D", "DIS3D"} & set(self.image_type))

    @property
    def extent(self) -> float:
        """Smallest edge of the imaged box, in mm."""
        return min(n * s for n, s in zip(self.shape, self.spacing, strict=True))

    def __str__(self) -> str:
        size = "x".join(f"{s:.3g}" for s in self.spacing)
        return f"series {self.number} '{self.description}' ({self.shape[2]} slices, {size} mm)"


@dataclass(frozen=True)
class Verdict:
    """What became of one series: the column it was chosen for, or why it was not."""

    series: Series
    column: str
    reason: str

    def as_record(self) -> dict[str, Any]:
        """Return the verdict for the table ``conversion.json``; lengths in mm, times in ms, b in s/mm2."""
        s = self.series
        return {
            "series": s.number,
            "description": s.description,
            "column": self.column,
            "reason": self.reason,
            "modality": s.modality,
            "shape": list(s.shape),
            "volumes": s.volumes,
            "spacing_mm": [round(v, 4) for v in s.spacing],
            "slice_thickness_mm": s.thickness,
            "contrast_agent": bool(s.agent),
            "echo_time_ms": s.echo_time,
            "repetition_time_ms": s.repetition_time,
            "inversion_time_ms": s.inversion_time,
            "b_values": list(s.b_values),
            "image_type": list(s.image_type),
            "files": len(s.files),
        }


def _words(pattern: str) -> re.Pattern[str]:
    """Match any of the words, separated by ``|``, where no other letter touches them."""
    return re.compile(rf"(?<![a-z])(?:{pattern})(?![a-z])")


#: What no column asks for, by the words of its description.
_OTHER = {
    "localizer": _words(r"locali[sz]er\w*|\w*scout\w*|survey|loc|3[-_ ]?pl(?:ane)?"),
    "screenshot or report": _words(r"screen ?shots?|snapshots?|screen ?save|report|summary|key images?"),
    "perfusion": _words(r"perf|perfusion|dsc|dce|p?casl|asl|r?cbf|r?cbv|mtt|ttp|tmax"),
    "susceptibility": _words(r"swip?|swan|t2w?[-_ ]?\*|t2[-_ ]?star|m[-_ ]?ip|minip|ha?emo"),
    "angiography": _words(r"tof|angio|mra|mrv|veno|venography"),
    "function": _words(r"bold|fmri|rest|resting"),
    "spectroscopy": _words(r"svs|csi|mrs|spectro|spectroscopy|press"),
    "field map or calibration": _words(
        r"field[-_ ]?map\w*|b0map|b1map|calib|calibration|asset|ref[-_ ]?scan"
    ),
    "subtraction": _words(r"sub|subtr|subtraction"),
    "diffusion map other than ADC": _words(
        r"fa(?![0-9])|colfa|tensor|e?exp|eadc|exponential|fractional[-_ ]aniso\w*"
    ),
    # A number before dir counts the directions of a diffusion series.
    "other tissue contrast": _words(r"stir|(?<![0-9])(?<![0-9][-_ ])dir|ciss|fiesta|pd|mt|mtc"),
    "other body part": _words(r"spine|[ctl]-?spine|cervical|lumbar|thoracic|orbits?"),
}
_ADC = _words(r"adc|apparent[-_ ]diff\w*")
_DIFFUSION = _words(r"dti\w*|dwi|diff|diffusion|tracew?")
_FLAIR = re.compile(r"flair|tirm|dark[-_ ]?fl|(?<![a-z])da[-_ ]?fl")
_T2 = re.compile(r"t2(?![0-9])")
_T1 = re.compile(r"t1(?![0-9])|mp[-_ ]?rage|f?spgr|bravo|(?<![a-z])tfl|vibe|(?<![a-z])flash")
_WITHOUT = re.compile(
    r"(?<![a-z])(?:pre(?![-_ ]?op)|w/?o|without|ohne|native?)(?![a-z])[-_ ]*"
    r"(?:(?:contrast|kontrast\w*|gad\w*|gd|km|ce)(?![a-z]))?"
    r"|(?<![a-z])(?:non?[-_ ]*(?:contrast|gad\w*|gd|km|ce|enhanced)|un-?enhanced|pre(?:contrast|gd|km|gad\w*))(?![a-z])"
)
_WITH = re.compile(
    r"(?<![a-z])(?:gd|gad\w*|km|kontrast\w*|contrast|ce|dotarem|prohance|multihance|magnevist|clariscan|"
    r"post(?![-_ ]?op)|post[-_ ]?(?:contrast|gd|km|gad\w*))(?![a-z])"
    r"|\+ ?(?:c|gd|km|ce)(?![a-z])|(?<![a-z])c\+|t1w?[-_ ]?(?:ce|gd|c|km|post)(?![a-z])"
)
_NO_AGENT = re.compile(r"^(?:none|no|nein|n|0|false|without.*|ohne.*)$")


def with_contrast(series: Series) -> bool | None:
    """Tell whether contrast agent was given: by the header's agent, or by the description.

    Returns
    -------
    bool or None
        None where the two contradict each other.
    """
    agent = bool(series.agent) and not _NO_AGENT.match(series.agent.strip().lower())
    without = bool(_WITHOUT.search(series.text))
    stated = bool(_WITH.search(_WITHOUT.sub(" ", series.text)))
    if without and (stated or agent):
        return None
    return agent or stated


def by_parameters(series: Series) -> str:
    """Return ``t1``, ``t2`` or ``flair`` by echo, repetition and inversion time, empty if they do not tell.

    Limits as of clinical protocols: FLAIR nulls fluid (inversion above 1.5 s) at a long echo; T2 has long echo and
    repetition; T1 a short echo with short repetition or an inversion of 0.4 to 1.3 s.
    """
    echo, repetition, inversion = series.echo_time, series.repetition_time, series.inversion_time or 0.0
    if echo is None or repetition is None:
        return ""
    if inversion > 1500 and echo > 60:
        return "flair"
    if echo >= 70 and repetition >= 2000 and not inversion:
        return "t2"
    if echo <= 40 and 400 <= inversion <= 1300:
        return "t1"
    if "GR" in series.sequence:
        return "t1" if echo <= 10 and repetition <= 60 else ""
    return "t1" if echo <= 30 and repetition <= 1200 else ""


def recognise(series: Series) -> tuple[str, str]:
    """Return the column a series belongs to, empty if none, and the reason."""
    if series.modality == "PT":
        return "pet", "PET"
    if series.modality != "MR":
        return "", f"modality {series.modality or 'unknown'}"
    if not series.is_volume:
        return "", series.fault
    kinds = set(series.image_type)
    if "LOCALIZER" in kinds:
        return "", "localizer"
    if {"P", "PHASE", "PHASE MAP"} & set(series.image_type[2:]):
        return "", "phase image"
    if {"PROJECTION IMAGE", "MIP", "MINIP", "MNIP", "SUBTRACTION", "SCREEN SAVE"} & kinds:
        return "", "projection, subtraction or screenshot"
    for reason, pattern in _OTHER.items():
        if pattern.search(series.text):
            return "", reason
    if _ADC.search(series.text) or "ADC" in kinds:
        return "adc", "ADC by name or image type"
    weighted = [b for b in series.b_values if b >= DIFFUSION_WEIGHTED]
    if weighted or _DIFFUSION.search(series.text):
        if weighted and len(series.b_values) > 1:
            return "dti", f"diffusion-weighted, b up to {weighted[-1]:g} s/mm2"
        return "", "diffusion-weighted with fewer than two b-values"
    return _recognise_structural(series)


def _recognise_structural(series: Series) -> tuple[str, str]:
    t1, t2 = bool(_T1.search(series.text)), bool(_T2.search(series.text))
    if _FLAIR.search(series.text):
        named = "t1" if t1 and not t2 else "flair"
    elif t1 != t2:
        named = "t1" if t1 else "t2"
    else:
        named = ""
    measured = by_parameters(series)
    if named and measured and named != measured:
        return "", f"name says {named}, echo, repetition and inversion time say {measured}"
    kind = named or measured
    if not kind:
        return "", "neither name nor sequence parameters tell what it shows"
    reason = f"{kind} by {'name' if named else 'echo, repetition and inversion time'}"
    if kind != "t1":
        return kind, reason
    contrast = with_contrast(series)
    if contrast is None:
        return "", "T1; contrast agent both stated and denied by header and description"
    return ("t1c" if contrast else "t1"), f"{reason}, {'with' if contrast else 'no sign of'} contrast agent"


def narrow(candidates: Sequence[Series]) -> tuple[list[Series], dict[Series, str]]:
    """Drop the lesser ones of several series of one contrast.

    In this order: those with a fault if there are complete ones, those with several images of a slice (echoes,
    phases of an uptake) if there are plain ones, derived ones if there are originals, those that show a part of the
    head only, those not corrected for distortion, and 2-D ones if one has clearly finer slices.

    Returns
    -------
    left : list of Series
        What remains; more than one is an ambiguity.
    dropped : dict
        Series -> why it was dropped.
    """
    left, dropped = list(candidates), {}

    def keep(good: Iterable[Series], reason: str) -> None:
        nonlocal left
        chosen = list(good)
        if chosen and len(chosen) < len(left):
            dropped.update({s: reason for s in left if s not in chosen})
            left = chosen

    keep((s for s in left if not s.fault), "incomplete, as another series is not")
    keep((s for s in left if s.volumes == 1), "several images of each slice")
    keep((s for s in left if not s.derived), "derived from another series")
    largest = max((s.extent for s in left), default=0.0)
    keep((s for s in left if s.extent >= PARTIAL_EXTENT * largest), "shows a part of the head only")
    keep((s for s in left if s.corrected), "not corrected for distortion, as another series is")
    edges = sorted(max(s.spacing) for s in left)
    if len(edges) > 1 and edges[0] <= FINER_VOXELS * edges[1]:
        keep((s for s in left if max(s.spacing) == edges[0]), "thicker slices than another series")
    return left, dropped


def choose_one(found: Sequence[Series], column: str) -> tuple[list[Series], list[Verdict], bool]:
    """Choose among the series of a folder that was named for one column.

    A single series is taken as the column says, whatever it looks like.

    Returns
    -------
    left : list of Series
        The choice; more than one is an ambiguity, none means that nothing in the folder is an image.
    verdicts : list of Verdict
        Why the others were not taken.
    doubt : bool
        Whether the chosen one looks like another contrast.
    """
    looks = {series: recognise(series) for series in found}
    verdicts = [Verdict(s, "", s.fault) for s in found if not s.is_volume]
    images = [s for s in found if s.is_volume]
    if len(images) > 1:
        fitting = [s for s in images if looks[s][0] == column] or [s for s in images if looks[s][0]] or images
        verdicts += [Verdict(s, "", f"not {column}: {looks[s][1]}") for s in images if s not in fitting]
        images, dropped = narrow(fitting)
        verdicts += [Verdict(s, "", reason) for s, reason in dropped.items()]
    doubt = len(images) == 1 and looks[images[0]][0] not in ("", column)
    # Without a word on contrast agent the column is the better witness.
    if doubt and (column, looks[images[0]][0]) == ("t1c", "t1"):
        doubt = with_contrast(images[0]) is None
    return images, verdicts, doubt


def sort_exam(found: Sequence[Series]) -> tuple[dict[str, list[Series]], list[Verdict]]:
    """Sort the series of a mixed exam folder into columns.

    Returns
    -------
    columns : dict
        Column -> its series; more than one is an ambiguity.
    verdicts : list of Verdict
        Why the others were not taken.
    """
    columns: dict[str, list[Series]] = {}
    verdicts = []
    for series in found:
        column, reason = recognise(series)
        if column:
            columns.setdefault(column, []).append(series)
        else:
            verdicts.append(Verdict(series, "", reason))
    for column, candidates in columns.items():
        columns[column], dropped = narrow(candidates)
        verdicts += [Verdict(s, "", f"{column}: {reason}") for s, reason in dropped.items()]
    return columns, verdicts
