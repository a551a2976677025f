"""Regions as a DICOM Segmentation, binary, by highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from predictgbm import __version__
from predictgbm.export.reference import MARK, NOTICE, Reference, Region, check_regions
from predictgbm.images import ImageError

#: Category, type and algorithm of a segment (PS3.16: CID 7150 and 7151, of targets CID 9580 and 9534; CID 7162).
_CODES = {
    "tumor": (
        codes.SCT.MorphologicallyAbnormalStructure,
        codes.SCT.NeoplasmPrimary,
        codes.DCM.ArtificialIntelligence,
    ),
    "margin": (codes.DCM.RTTarget, codes.SCT.CTV, codes.DCM.MorphologicalOperations),
    "model": (codes.DCM.RTTarget, codes.SCT.CTV, codes.DCM.ArtificialIntelligence),
}


def make_segmentation(
    regions: Sequence[Region], reference: Reference, *, series_number: int = 9002
) -> Dataset:
    """Put regions on the slices of a series, one segment each; segments may overlap.

    Written by highdicom (Bridge CP et al. Journal of Digital Imaging 35:1719-1737, 2022,
    doi:10.1007/s10278-022-00683-y).

    Parameters
    ----------
    regions
        What to write, on the grid of the reference.
    reference
        The series that the segmentation refers to; patient and study are copied from it.
    series_number
        Number of the new series.

    Returns
    -------
    dataset : slices without any region are left out

    Raises
    ------
    ImageError
        As :func:`~predictgbm.export.reference.check_regions`, or if the headers of the series are so damaged that
        highdicom refuses them.
    """
    check_regions(regions, reference)
    # Frames first, then rows and columns, segments last.
    pixels = np.stack([region.mask for region in regions], axis=-1).transpose(2, 1, 0, 3)
    if reference.multi_frame:
        pixels = pixels[np.argsort([frame.instance for frame in reference.frames])]
    try:
        return hd.seg.Segmentation(
            source_images=reference.datasets,
            pixel_array=pixels.astype(np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_describe(region, n) for n, region in enumerate(regions, start=1)],
            series_instance_uid=generate_uid(),
            series_number=series_number,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="PREDICT-GBM",
            manufacturer_model_name="predictgbm",
            software_versions=__version__,
            device_serial_number="none",
            content_label="RESEARCH_ONLY",
            content_description=f"PREDICT-GBM: {NOTICE}",
            series_description=f"PREDICT-GBM: {NOTICE}",
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ImageError(
            f"{reference.grid.name}: headers do not suffice for a DICOM-SEG ({error})"
        ) from error


def _describe(region: Region, number: int) -> Any:
    category, kind, algorithm = _CODES[region.kind]
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{MARK}{region.name}",
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"PREDICT-GBM {region.name}", family=algorithm, version=__version__
        ),
        tracking_uid=generate_uid(),
        tracking_id=f"{MARK}{region.name}",
        display_color=hd.color.CIELabColor.from_rgb(*region.colour),
    )
