"""DICOM series made from an array: what a scanner would have sent, for tests and for simulated patients.

Attributes by the MR Image and Enhanced MR Image modules of DICOM PS3.3; explicit VR little endian, uncompressed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat

from predictgbm.images import ImageError
from predictgbm.simulation.raw import Protocol, RawExam, reorder


def make_uid(*parts: object) -> UID:
    """Return the UID that belongs to some values: 2.25 and the integer of a name-based UUID (PS3.5, annex B.2)."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(map(str, parts))).int}")


#: The order of series in an exam; number 1 is the localizer.
SERIES = {"t1": 2, "t2": 3, "flair": 4, "adc": 5, "t1c": 6}

#: Voxel order of a scanner: columns, rows and slices run this way.
SCANNER_ORDER = {"axial": "LPS", "sagittal": "PIL"}


def write_exam(folder: Path, exam: RawExam, attributes: Mapping[str, Any], *, mixed: bool) -> dict[str, Path]:
    """Write a simulated exam as DICOM.

    Parameters
    ----------
    folder
        Where it goes.
    exam
        What was scanned.
    attributes
        What all series share: patient and study, DICOM keyword -> value.
    mixed
        All series in one folder, a localizer among them, in place of a folder per contrast.

    Returns
    -------
    folders : column of the samplesheet -> folder; ``dicom`` if mixed
    """
    for name, image in exam.images.items():
        protocol, number = exam.protocols[name], SERIES[name]
        place = folder / "dicom" if mixed else folder / f"{number:02d}_{protocol.description}"
        order = "".join(nib.aff2axcodes(image.affine))
        data, affine = reorder(image.data, image.affine, SCANNER_ORDER[protocol.plane], order)
        described = {**attributes, **_describe(name, protocol), "SeriesNumber": number}
        write_series(place, data, affine, described, prefix=f"S{number:02d}_" if mixed else "IM")
    if not mixed:
        return {n: folder / f"{SERIES[n]:02d}_{p.description}" for n, p in exam.protocols.items()}
    for part, image in enumerate(exam.localizer, start=1):
        described = {**attributes, **LOCALIZER, "AcquisitionNumber": part}
        write_series(folder / "dicom", image.data, image.affine, described, prefix=f"S01_{part}_")
    return {"dicom": folder / "dicom"}


LOCALIZER = {
    "SeriesNumber": 1,
    "SeriesDescription": "localizer",
    "EchoTime": 3.4,
    "RepetitionTime": 8.6,
    "ScanningSequence": "GR",
    "MRAcquisitionType": "2D",
}


def _describe(name: str, protocol: Protocol) -> dict[str, Any]:
    """Return the attributes that belong to a contrast."""
    minute = 5 * SERIES[name]
    attributes: dict[str, Any] = {
        "SeriesDescription": protocol.description,
        "ProtocolName": protocol.description,
        "SeriesTime": f"10{minute:02d}00",
        "AcquisitionTime": f"10{minute:02d}00",
        "AcquisitionNumber": 1,
        "MRAcquisitionType": protocol.kind,
        "ScanningSequence": protocol.sequence.split("\\"),
        "SliceThickness": protocol.thickness,
        "EchoTime": protocol.echo,
        "RepetitionTime": protocol.repetition,
        "FlipAngle": protocol.flip,
    }
    if protocol.inversion:
        attributes["InversionTime"] = protocol.inversion
    if name == "t1c":
        attributes |= {"ContrastBolusAgent": "Gadolinium (simulated)", "ContrastBolusRoute": "IV"}
    if name == "adc":
        attributes["ImageType"] = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"]
    return attributes


def write_series(
    folder: Path,
    data: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
    attributes: Mapping[str, Any],
    *,
    prefix: str = "IM",
    slope: float = 1.0,
    intercept: float = 0.0,
    enhanced: bool = False,
) -> list[Path]:
    """Write an array as one DICOM MR series.

    The first axis runs along the columns of a slice, the second along its rows, the third through the slices;
    any order, flip and obliqueness of the axes is kept, and files are numbered along the third.

    Parameters
    ----------
    folder
        Where the files go; made if absent. Several series may share it under different prefixes.
    data
        Integer array of shape (nx, ny, nz), the values after rescaling.
    affine
        Voxel index to RAS mm, shape (4, 4), with axes at right angles. The length of its third column is the
        distance of slices.
    attributes
        DICOM keyword -> value, at least PatientID, SeriesNumber and SeriesDescription; ``SliceThickness`` (mm)
        below the distance of slices leaves gaps, absent there are none. UIDs that are not given follow from
        StudyInstanceUID, or else PatientID and StudyDate, and from SeriesNumber.
    prefix
        Begin of the file names ``<prefix>0001.dcm``.
    slope, intercept
        Stored value = (value - intercept) / slope, which must be a whole number of 16 bits.
    enhanced
        One enhanced multi-frame file in place of a file per slice.

    Returns
    -------
    paths : the files written, in the order of slices

    Raises
    ------
    ImageError
        If the axes are not at right angles or a stored value does not fit 16 bits.
    """
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    axes = affine[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4:
        raise ImageError("a DICOM series needs axes at right angles; resample the image without shear")
    stored = (data - intercept) / slope
    kind = np.int16 if stored.min() < 0 else np.uint16
    limits = np.iinfo(kind)
    pixels = np.rint(stored).astype(np.int64)
    if np.abs(stored - pixels).max() > 1e-6 or pixels.min() < limits.min or pixels.max() > limits.max:
        raise ImageError(
            f"values {stored.min():g} to {stored.max():g} after rescaling are no whole numbers of 16 bits; "
            "choose another slope and intercept"
        )

    study = attributes.get("StudyInstanceUID") or make_uid(
        attributes["PatientID"], attributes.get("StudyDate", "")
    )
    common = Dataset()
    common.PatientName = str(attributes["PatientID"])
    common.Modality = "MR"
    common.StudyInstanceUID = study
    common.FrameOfReferenceUID = make_uid(study, "frame of reference")
    common.SeriesInstanceUID = make_uid(study, attributes["SeriesNumber"])
    common.SliceThickness = _number(spacing[2])
    common.SpacingBetweenSlices = _number(spacing[2])
    common.PatientPosition = "HFS"
    common.ScanningSequence, common.SequenceVariant = "RM", "NONE"
    for keyword, value in attributes.items():
        setattr(common, keyword, value)
    common.Rows, common.Columns = data.shape[1], data.shape[0]
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    common.PixelRepresentation = int(kind is np.int16)
    window = float(np.percentile(data[:: max(1, len(data) // 64)], 99.5))
    common.WindowCenter, common.WindowWidth = _number(window / 2), _number(max(window, 1))

    planes = [_plane(affine, axes, spacing, common.SliceThickness, k) for k in range(data.shape[2])]
    # Rows of the DICOM image are the second axis.
    frames = np.ascontiguousarray(pixels.transpose(2, 1, 0).astype(kind))
    folder.mkdir(parents=True, exist_ok=True)
    if enhanced:
        path = folder / f"{prefix}0001.dcm"
        _write(path, _enhance(common, planes, frames, slope, intercept), EnhancedMRImageStorage)
        return [path]
    paths = []
    for number, (plane, frame) in enumerate(zip(planes, frames, strict=True), start=1):
        dataset = Dataset()
        dataset.update(common)
        dataset.update(plane)
        dataset.setdefault("ImageType", ["ORIGINAL", "PRIMARY", "M", "ND"])
        dataset.InstanceNumber = number
        dataset.SOPInstanceUID = make_uid(common.SeriesInstanceUID, prefix, number)
        dataset.RescaleSlope, dataset.RescaleIntercept = _number(slope), _number(intercept)
        dataset.PixelData = frame.astype("<i2" if frame.dtype == np.int16 else "<u2").tobytes()
        paths.append(folder / f"{prefix}{number:04d}.dcm")
        _write(paths[-1], dataset, MRImageStorage)
    return paths


def _number(value: float) -> DSfloat:
    """Return a decimal string with as many digits as its 16 characters hold."""
    return DSfloat(float(value) + 0.0, auto_format=True)


def _plane(
    affine: NDArray[np.float64],
    axes: NDArray[np.float64],
    spacing: NDArray[np.float64],
    thickness: float,
    k: int,
) -> Dataset:
    """Return where slice k lies, in DICOM's axes to left, posterior and superior."""
    lps = np.array([-1.0, -1.0, 1.0])
    plane = Dataset()
    position = affine[:3, 3] + k * affine[:3, 2]
    plane.ImagePositionPatient = [_number(v) for v in position * lps]
    plane.ImageOrientationPatient = [_number(v) for a in (0, 1) for v in axes[:, a] * lps]
    # Row spacing, the distance along the second axis, comes first.
    plane.PixelSpacing = [_number(spacing[1]), _number(spacing[0])]
    normal = np.cross(axes[:, 0], axes[:, 1])
    plane.SliceLocation = _number(float(normal @ position))
    plane.SliceThickness = thickness
    return plane


def _enhance(
    common: Dataset, planes: list[Dataset], frames: NDArray[Any], slope: float, intercept: float
) -> Dataset:
    """Return the enhanced multi-frame form: what all frames share in one place, positions by frame."""

    def item(**values: Any) -> list[Dataset]:
        dataset = Dataset()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return [dataset]

    result = Dataset()
    result.update(common)
    result.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    result.InstanceNumber = 1
    result.SOPInstanceUID = make_uid(common.SeriesInstanceUID, "enhanced")
    result.NumberOfFrames = len(frames)
    result.SharedFunctionalGroupsSequence = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=planes[0].ImageOrientationPatient),
        PixelMeasuresSequence=item(
            PixelSpacing=planes[0].PixelSpacing,
            SliceThickness=common.SliceThickness,
            SpacingBetweenSlices=common.SpacingBetweenSlices,
        ),
        PixelValueTransformationSequence=item(
            RescaleSlope=_number(slope), RescaleIntercept=_number(intercept), RescaleType="US"
        ),
        MRTimingAndRelatedParametersSequence=item(
            RepetitionTime=common.get("RepetitionTime", 0), FlipAngle=common.get("FlipAngle", 90)
        ),
        MREchoSequence=item(EffectiveEchoTime=float(common.get("EchoTime", 0))),
    )
    stack = make_uid(common.SeriesInstanceUID, "dimensions")
    result.DimensionOrganizationSequence = item(DimensionOrganizationUID=stack)
    # In-Stack Position Number within Frame Content Sequence.
    result.DimensionIndexSequence = item(
        DimensionOrganizationUID=stack, DimensionIndexPointer=0x00209057, FunctionalGroupPointer=0x00209111
    )
    result.PerFrameFunctionalGroupsSequence = [
        item(
            FrameContentSequence=item(StackID="1", InStackPositionNumber=n, DimensionIndexValues=[n]),
            PlanePositionSequence=item(ImagePositionPatient=plane.ImagePositionPatient),
        )[0]
        for n, plane in enumerate(planes, start=1)
    ]
    for keyword in ("SliceThickness", "SpacingBetweenSlices", "WindowCenter", "WindowWidth"):
        delattr(result, keyword)
    result.PixelData = frames.astype("<i2" if frames.dtype == np.int16 else "<u2").tobytes()
    return result


def _write(path: Path, dataset: Dataset, sop_class: UID) -> None:
    dataset.SOPClassUID = sop_class
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = make_uid("predictgbm", "simulation")
    FileDataset(str(path), dataset, file_meta=meta, preamble=b"\0" * 128).save_as(
        path, enforce_file_format=True
    )
