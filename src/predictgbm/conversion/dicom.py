"""Reading of DICOM folders: series and their geometry from the headers, conversion by dcm2niix."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from predictgbm.conversion.series import Series, Verdict, choose_one
from predictgbm.images import ImageError

#: Fields of dcm2niix' sidecar that say how the image was made and nothing about who was imaged, where or when.
SIDECAR_FIELDS = (
    "Modality",
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "MRAcquisitionType",
    "PulseSequenceType",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "ImageType",
    "PatientPosition",
    "SliceThickness",
    "SpacingBetweenSlices",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "EchoTrainLength",
    "PixelBandwidth",
    "PercentPhaseFOV",
    "PercentSampling",
    "AcquisitionMatrixPE",
    "ReconMatrixPE",
    "ParallelReductionFactorInPlane",
    "ConversionSoftware",
    "ConversionSoftwareVersion",
)

#: Header fields whose words are taken out of every description that is shown or written.
_IDENTIFYING = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "InstitutionName",
    "StationName",
    "AccessionNumber",
    "StudyID",
    "DeviceSerialNumber",
)
_WANTED = (
    *_IDENTIFYING,
    "SOPClassUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "SeriesNumber",
    "InstanceNumber",
    "ScanningSequence",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "SliceThickness",
    "SpacingBetweenSlices",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "Rows",
    "Columns",
    "DiffusionBValue",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
#: b-value where makers keep it outside the standard's field, and the mark of the maker.
_PRIVATE_B_VALUES = {
    (0x0019, 0x100C): "SIEMENS MR HEADER",
    (0x0043, 0x1039): "GEMS_PARM_01",
    (0x2001, 0x1003): "Philips Imaging DD 001",
}
#: Number of slices that Siemens put side by side into one image.
_MOSAIC_SLICES = (0x0019, 0x100A)
_MARKS = [(group, 0x0010) for group, _ in _PRIVATE_B_VALUES]
_TAGS = [*map(Tag, _WANTED), *map(Tag, (*_PRIVATE_B_VALUES, *_MARKS, _MOSAIC_SLICES))]

#: Positions of slices that are nearer to each other than this are the same, in mm.
SAME_POSITION_MM = 0.01
#: How far slices may be from even spacing, in mm and as a share of the spacing.
UNEVEN_MM, UNEVEN_SHARE = 0.1, 0.05


@dataclass(frozen=True)
class Frame:
    """Position of one slice image: mm in the DICOM patient system (LPS), and what else may differ by slice."""

    instance: int
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    b_value: float | None


def is_dicom(path: Path) -> bool:
    """Tell whether a path is meant as DICOM, a folder or a single file, and not as NIfTI."""
    return not path.name.lower().endswith((".nii", ".nii.gz"))


def list_files(path: Path) -> list[Path]:
    """Return the files below a folder, or the file itself, sorted by path."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))


def read_header(path: Path) -> Dataset | None:
    """Read what is needed of a DICOM image's header; None if the file is no DICOM image."""
    with warnings.catch_warnings():
        # Values that break the standard's rules of form are common and do not matter here.
        warnings.simplefilter("ignore")
        try:
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            except InvalidDicomError:
                # Some archives leave out the preamble.
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True)
        except (OSError, EOFError, ValueError, KeyError, NotImplementedError, AttributeError, TypeError):
            return None
        return header if "SOPClassUID" in header and "SeriesInstanceUID" in header else None


def _has_mark(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def check_folder(path: Path, most: int = 50) -> None:
    """Check quickly that a path holds DICOM images: few files are read, those with the mark of DICOM first.

    Raises
    ------
    ImageError
        If it does not exist, is empty or has no DICOM image among its first files.
    """
    if not path.exists():
        raise ImageError(f"{path}: folder does not exist; check the path")
    files = list_files(path)
    if not files:
        raise ImageError(f"{path}: folder is empty; copy or export the DICOM files again")
    files.sort(key=_has_mark, reverse=True)
    if not any(read_header(file) is not None for file in files[:most]):
        raise ImageError(
            f"{path}: holds no DICOM image ({len(files)} files, the first is {files[0].name}); "
            "name the folder of the DICOM files, or a NIfTI file"
        )


def read_series(path: Path) -> list[Series]:
    """List the series of a DICOM folder (or of a single DICOM file), ordered by number and description.

    Raises
    ------
    ImageError
        If there is no DICOM image, or the files belong to several patients.
    """
    check_folder(path, most=sys.maxsize)
    groups: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    patients = set()
    for file in list_files(path):
        header = read_header(file)
        if header is not None:
            groups[str(header.SeriesInstanceUID)].append((file, header))
            patients.add(str(header.get("PatientID", "")))
    if len(patients) > 1:
        raise ImageError(
            f"{path}: holds exams of {len(patients)} patients (by patient ID); give each exam a folder of its own"
        )
    found = [_describe_series(members) for members in groups.values()]
    return sorted(found, key=lambda s: (s.number, s.description, s.files))


def find_series(path: Path, column: str) -> tuple[Series, list[Verdict], bool]:
    """Find the series of one contrast in a DICOM folder, of one series or of several.

    Parameters
    ----------
    path
        Folder, or a single DICOM file.
    column
        Column of the samplesheet: ``t1c``, ``flair`` ...

    Returns
    -------
    series, verdicts, doubt
        The series, why the others were not taken, and whether it looks like another contrast; see
        :func:`~predictgbm.conversion.series.choose_one`.

    Raises
    ------
    ImageError
        As :func:`read_series`, and if no series or several could be it.
    """
    left, verdicts, doubt = choose_one(read_series(path), column)
    if not left:
        reasons = "; ".join(f"{v.series}: {v.reason}" for v in verdicts)
        raise ImageError(f"{path}: has no series of images ({reasons}); name the folder of the {column}")
    if len(left) > 1:
        raise ImageError(
            f"{path}: {len(left)} series could be {column}: {'; '.join(map(str, left))}; put the files of the "
            f"wanted one into a folder of its own and name that in column {column}"
        )
    return left[0], verdicts, doubt


def _describe_series(members: list[tuple[Path, Dataset]]) -> Series:
    first = members[0][1]
    texts = [str(first.get(name, "") or "") for name in ("SeriesDescription", "ProtocolName", "SequenceName")]
    frames = [frame for _, header in members for frame in read_frames(header)]
    shape, spacing, volumes, fault = (0, 0, 0), (0.0, 0.0, 0.0), 1, "no image with a position in space"
    if frames:
        slices, step, volumes, fault = check_slices(frames)
        columns, rows = int(first.get("Columns", 0)), int(first.get("Rows", 0))
        # DICOM gives the distance of rows first.
        shape, spacing = (columns, rows, slices), (frames[0].spacing[1], frames[0].spacing[0], step)
        if "MOSAIC" in _texts(first.get("ImageType")) and _MOSAIC_SLICES in first:
            slices = int(first[_MOSAIC_SLICES].value)
            tiles = math.ceil(math.sqrt(slices))
            distance = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 0)
            shape, volumes, fault = (columns // tiles, rows // tiles, slices), len(members), ""
            spacing = (*spacing[:2], distance)
    b_values = {round(frame.b_value) for frame in frames if frame.b_value is not None}
    return Series(
        number=int(first.get("SeriesNumber") or 0),
        description=remove_identity(texts[0] or texts[1], first),
        text=" ".join(texts).lower(),
        files=tuple(path for path, _ in members),
        modality=str(first.get("Modality", "")),
        image_type=tuple(v.upper() for v in _texts(first.get("ImageType"))),
        sequence=_texts(first.get("ScanningSequence")),
        echo_time=_number(_nested(first, "MREchoSequence", "EffectiveEchoTime", "EchoTime")),
        repetition_time=_number(_nested(first, "MRTimingAndRelatedParametersSequence", "RepetitionTime")),
        inversion_time=_inversion_time(first),
        agent=_agent(first),
        b_values=tuple(sorted(b_values)),
        shape=shape,
        volumes=volumes,
        spacing=spacing,
        thickness=_number(_nested(first, "PixelMeasuresSequence", "SliceThickness")),
        fault=fault,
    )


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, (MultiValue, list)) else (str(value),)


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _groups(header: Dataset, frame: Dataset | None = None) -> Iterator[Dataset]:
    """Yield the functional groups that hold for a frame (default the first), its own before the shared ones."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if frame is not None:
        yield frame
    elif per_frame:
        yield per_frame[0]
    yield from header.get("SharedFunctionalGroupsSequence") or ()


def _nested(header: Dataset, sequence: str, *names: str, frame: Dataset | None = None) -> Any:
    """Return a value of a multi-frame image's functional group, or else of the header itself."""
    for group in _groups(header, frame):
        for item in group.get(sequence) or ():
            for name in names:
                if item.get(name) is not None:
                    return item.get(name)
    return next((header.get(name) for name in names if header.get(name) is not None), None)


def _inversion_time(header: Dataset) -> float | None:
    value = _nested(header, "MRModifierSequence", "InversionTimes", "InversionTime")
    return _number(value[0] if isinstance(value, (MultiValue, list)) else value)


def _agent(header: Dataset) -> str:
    """Return the contrast agent's name, of old or of enhanced headers."""
    agent = str(header.get("ContrastBolusAgent", "") or "")
    for item in header.get("ContrastBolusAgentSequence") or ():
        agent = agent or str(item.get("CodeMeaning", "") or "agent")
    return agent


def _b_value(header: Dataset, frame: Dataset | None) -> float | None:
    value = _number(_nested(header, "MRDiffusionSequence", "DiffusionBValue", frame=frame))
    if value is not None or frame is not None:
        return value
    for tag, maker in _PRIVATE_B_VALUES.items():
        mark = header.get((tag[0], 0x0010))
        if tag in header and mark is not None and str(mark.value).strip() == maker:
            raw = header[tag].value
            if isinstance(raw, bytes):
                raw = raw.decode("ascii", "ignore").split("\\")[0]
            elif not isinstance(raw, (str, int, float)) and hasattr(raw, "__getitem__"):
                raw = raw[0]
            value = _number(raw)
            # GE adds 1e9 to some b-values.
            return None if value is None else value % 1e9
    return None


def read_frames(header: Dataset) -> Iterator[Frame]:
    """Yield the frames of an image that lie in space; an image without position, such as a screenshot, has none."""
    multi = header.get("PerFrameFunctionalGroupsSequence")
    for number, frame in enumerate(multi or (None,), start=1):
        position = _nested(header, "PlanePositionSequence", "ImagePositionPatient", frame=frame)
        orientation = _nested(header, "PlaneOrientationSequence", "ImageOrientationPatient", frame=frame)
        spacing = _nested(header, "PixelMeasuresSequence", "PixelSpacing", frame=frame)
        if position is None or orientation is None or spacing is None:
            continue
        if len(position) != 3 or len(orientation) != 6 or len(spacing) != 2:
            continue
        yield Frame(
            number if multi else int(header.get("InstanceNumber") or 0),
            np.array(position, np.float64),
            np.array(orientation, np.float64),
            (float(spacing[0]), float(spacing[1])),
            _b_value(header, frame),
        )


def check_slices(frames: list[Frame]) -> tuple[int, float, int, str]:
    """Check that slices form complete, evenly spaced, parallel stacks.

    Returns
    -------
    slices : int
        Number of slice positions; 0 if the slices are not parallel, as those of a localizer.
    step : float
        Distance of neighbouring slices in mm.
    volumes : int
        Number of images of each position.
    fault : str
        What is wrong and where; positions are mm along the normal of the slices, from the first one.
    """
    orientations = np.array([frame.orientation for frame in frames])
    if np.abs(orientations - orientations[0]).max() > 1e-2:
        return 0, 0.0, 1, "slices of several orientations (a localizer?)"
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    points = np.array([frame.position for frame in frames])
    along = points @ normal
    order = np.argsort(along, kind="stable")
    along = along[order]
    group = np.concatenate([[0], np.cumsum(np.diff(along) > SAME_POSITION_MM)])
    counts = np.bincount(group)
    places = np.array([along[group == g].mean() for g in range(len(counts))])
    if len(places) == 1:
        return 1, 0.0, int(counts[0]), "a single slice"
    steps = np.diff(places)
    step = float(np.median(steps))
    volumes = int(np.bincount(counts).argmax())

    def near(g: int) -> str:
        instances = sorted({frames[i].instance for i in order[group == g]})
        return f"{places[g] - places[0]:.4g} mm (image {instances[0]})"

    off = steps - step
    fault = ""
    if (worst := int(np.argmax(off))) is not None and off[worst] > 0.5 * step:
        count = round(float(steps[worst] / step)) - 1
        fault = (
            f"{count} of its slices {'is' if count == 1 else 'are'} missing between {near(worst)} and "
            f"{near(worst + 1)}, others lie {step:.4g} mm apart"
        )
    elif np.abs(off).max() > max(UNEVEN_MM, UNEVEN_SHARE * step):
        worst = int(np.argmax(np.abs(off)))
        fault = (
            f"slices are not evenly spaced: {steps[worst]:.4g} mm between {near(worst)} and {near(worst + 1)}, "
            f"others lie {step:.4g} mm apart"
        )
    elif counts.min() != counts.max():
        worst = int(np.argmax(np.abs(counts - volumes)))
        fault = f"{counts[worst]} images at {near(worst)}, {volumes} at other positions"
    else:
        across = points - points[order[0]] - np.outer(points @ normal - along[0], normal)
        if np.linalg.norm(across, axis=1).max() > 1:
            fault = "slices are shifted against each other (gantry tilt)"
    return len(places), step, volumes, fault


def remove_identity(text: str, header: Mapping[str, Any] | Dataset) -> str:
    """Take out of a description the words that the header's identifying fields hold, and long numbers."""
    words = {
        word.lower()
        for name in _IDENTIFYING
        for value in _texts(header.get(name))
        for word in re.findall(r"[^\W_]{3,}", value)
    }
    pieces = re.split(r"([^\W_]+)", text)
    return "".join(
        "*" if piece.lower() in words or re.search(r"\d{6,}", piece) else piece for piece in pieces
    ).strip()


def convert(series: Series, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Convert one series by dcm2niix into an empty folder.

    Returns
    -------
    path : Path
        The NIfTI file; ``.bval`` and ``.bvec`` lie beside it where the series has them.
    sidecar : dict
        What of :data:`SIDECAR_FIELDS` is known; times in s as BIDS has them.

    Raises
    ------
    ImageError
        If the series has a fault, dcm2niix fails, makes several images, or another number of slices than the
        headers have.
    """
    if series.fault:
        raise ImageError(f"{series}: {series.fault}; export the series again")
    # Headers are also read where nothing is converted, by an image that has no converter.
    import dcm2niix  # type: ignore[import-untyped]

    source, target = folder / "dicom", folder / "nifti"
    source.mkdir(parents=True)
    target.mkdir()
    for index, file in enumerate(series.files):
        (source / f"{index:06d}.dcm").symlink_to(file.resolve())
    # -g i: no defaults of the user's; -p n: the standard's rescaling, in which ADC maps of every maker are meant.
    options = ["-g", "i", "-b", "y", "-ba", "y", "-z", "n", "-p", "n", "-x", "n", "-w", "1", "-f", "image"]
    done = subprocess.run(
        [dcm2niix.bin, *options, "-o", str(target), str(source)], capture_output=True, text=True, check=False
    )
    made = sorted(p for p in target.glob("*.nii") if "_Eq" not in p.name)
    if not made:
        last = (done.stdout + done.stderr).replace(str(source), "").strip().splitlines()[-1:]
        raise ImageError(f"{series}: dcm2niix made no image ({' '.join(last)}); export the series again")
    weighted = [p for p in made if p.with_suffix(".bval").exists()]
    if len(made) > 1 and len(weighted) == 1:
        made = weighted  # beside maps that the scanner put into the diffusion series
    if len(made) > 1:
        kinds = ", ".join(_difference(path) for path in made)
        raise ImageError(
            f"{series}: holds {len(made)} different images ({kinds}); give the files of the wanted one in a folder "
            "of their own, or convert it yourself and give the NIfTI file"
        )
    shape = nib.load(made[0]).shape
    # Of a diffusion series dcm2niix leaves out the volumes that the scanner has averaged.
    whole = len(shape) == 3 if series.volumes == 1 else len(shape) <= 4
    if sorted(shape[:3]) != sorted(series.shape) or not whole:
        raise ImageError(
            f"{series}: dcm2niix made an image of shape {shape}, the headers tell of {series.shape} and "
            f"{series.volumes} volumes; convert it yourself and give the NIfTI file"
        )
    sidecar = made[0].with_suffix(".json")
    facts = json.loads(sidecar.read_text("utf-8")) if sidecar.exists() else {}
    return made[0], {name: facts[name] for name in SIDECAR_FIELDS if name in facts}


def _difference(path: Path) -> str:
    """Say by echo time and image type which of several images of one series this is."""
    sidecar = path.with_suffix(".json")
    facts = json.loads(sidecar.read_text("utf-8")) if sidecar.exists() else {}
    echo = f"echo time {1000 * facts['EchoTime']:g} ms" if "EchoTime" in facts else "no echo time"
    return f"{echo}, {'/'.join(map(str, facts.get('ImageType', [])))}"
