"""Regions as a DICOM RT Structure Set (PS3.3 A.19)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from predictgbm import __version__
from predictgbm.export.contours import trace
from predictgbm.export.reference import IDENTITY, MARK, NOTICE, Reference, Region, check_regions

#: What is copied beside the identity where the series has it.
_COPIED = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "IssuerOfPatientID",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyInstanceUID",
    "StudyDescription",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
)


def make_rtstruct(
    regions: Sequence[Region],
    reference: Reference,
    *,
    series_number: int = 9001,
    time: datetime | None = None,
) -> Dataset:
    """Draw regions on the slices of a series.

    Contours lie in the planes of the slices, as :func:`~predictgbm.export.contours.trace` makes them: closed planar,
    one for each island of a slice, holes joined by keyholes. They are in mm to four decimals. Nothing in it is
    approved, and no ROI has an interpreted type (GTV, CTV ...), so that none is taken for a target by itself.

    Parameters
    ----------
    regions
        What to draw, on the grid of the reference.
    reference
        The series that the structure set refers to; patient and study are copied from it.
    series_number
        Number of the new series.
    time
        When it was made; default now.

    Returns
    -------
    dataset : with file meta information, to be written by ``save_as(path, enforce_file_format=True)``

    Raises
    ------
    ImageError
        As :func:`~predictgbm.export.reference.check_regions`.
    """
    check_regions(regions, reference)
    time = time or datetime.now()
    source = reference.datasets[0]
    result = Dataset()
    result.PositionReferenceIndicator = None
    for keyword in (*IDENTITY, *_COPIED):
        if keyword in source:
            result.add(source[keyword])
    result.SOPClassUID, result.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    result.SeriesInstanceUID, result.SeriesNumber, result.InstanceNumber = generate_uid(), series_number, 1
    result.Modality, result.SeriesDescription = "RTSTRUCT", f"PREDICT-GBM: {NOTICE}"
    result.Manufacturer, result.ManufacturerModelName = "PREDICT-GBM", "predictgbm"
    result.SoftwareVersions, result.OperatorsName = __version__, None
    result.StructureSetLabel, result.StructureSetName = "RESEARCH ONLY", f"PREDICT-GBM: {NOTICE}"
    result.StructureSetDescription = f"Tumour and plans of growth models by PREDICT-GBM. {NOTICE}."
    for begin in ("InstanceCreation", "StructureSet"):
        setattr(result, f"{begin}Date", time.strftime("%Y%m%d"))
        setattr(result, f"{begin}Time", time.strftime("%H%M%S"))
    result.ApprovalStatus = "UNAPPROVED"
    result.ReferencedFrameOfReferenceSequence = [_describe_frame(reference)]
    result.StructureSetROISequence, result.ROIContourSequence, result.RTROIObservationsSequence = [], [], []
    for number, region in enumerate(regions, start=1):
        result.StructureSetROISequence.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=source.FrameOfReferenceUID,
                ROIName=f"{MARK}{region.name}",
                ROIDescription=f"{region.description} {NOTICE}.",
                ROIGenerationAlgorithm="AUTOMATIC",
                ROIGenerationDescription=f"PREDICT-GBM {__version__}",
            )
        )
        result.ROIContourSequence.append(
            _item(
                ReferencedROINumber=number,
                ROIDisplayColor=list(region.colour),
                ContourSequence=_draw(region, reference),
            )
        )
        result.RTROIObservationsSequence.append(
            _item(
                ObservationNumber=number,
                ReferencedROINumber=number,
                RTROIInterpretedType="",
                ROIInterpreter="",
            )
        )
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return result


def _item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _refer(reference: Reference, k: int) -> Dataset:
    """Return the reference to the image of slice ``k``, to its frame where one file holds all."""
    dataset = reference.datasets[0 if reference.multi_frame else k]
    item = _item(ReferencedSOPClassUID=dataset.SOPClassUID, ReferencedSOPInstanceUID=dataset.SOPInstanceUID)
    if reference.multi_frame:
        item.ReferencedFrameNumber = reference.frames[k].instance
    return item


def _describe_frame(reference: Reference) -> Dataset:
    """Return frame of reference, study, series and images that the structure set belongs to."""
    source = reference.datasets[0]
    images = [
        _item(ReferencedSOPClassUID=dataset.SOPClassUID, ReferencedSOPInstanceUID=dataset.SOPInstanceUID)
        for dataset in reference.datasets
    ]
    series = _item(SeriesInstanceUID=source.SeriesInstanceUID, ContourImageSequence=images)
    # The SOP class of a study, retired and still expected here (Detached Study Management).
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=source.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=source.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _draw(region: Region, reference: Reference) -> list[Dataset]:
    """Return the contours of a region, slice by slice."""
    contours: list[Dataset] = []
    for k in np.flatnonzero(region.mask.any(axis=(0, 1))).tolist():
        for polygon in trace(region.mask[:, :, k]):
            points = reference.points(k, polygon)
            contours.append(
                _item(
                    ContourImageSequence=[_refer(reference, k)],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourNumber=len(contours) + 1,
                    # Adding 0 takes the sign off a zero.
                    ContourData=[f"{value + 0.0:.4f}" for value in points.ravel().round(4)],
                )
            )
    return contours
