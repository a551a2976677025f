"""Which series is what: by words and parameters as scanners of several makers write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from predictgbm.conversion.dicom import Frame, _b_value, _describe_series, check_slices, remove_identity
from predictgbm.conversion.series import Series, choose_one, narrow, recognise, sort_exam, with_contrast

T1 = {"echo_time": 3.0, "repetition_time": 1900.0, "inversion_time": 1100.0, "sequence": ("GR", "IR")}
T2 = {"echo_time": 100.0, "repetition_time": 5000.0, "sequence": ("SE",)}
FLAIR = {"echo_time": 120.0, "repetition_time": 9000.0, "inversion_time": 2500.0, "sequence": ("SE", "IR")}
WHOLE: dict[str, Any] = {"shape": (240, 240, 160), "spacing": (1.0, 1.0, 1.0)}
THICK: dict[str, Any] = {"shape": (512, 512, 28), "spacing": (0.45, 0.45, 5.5)}


def series(text: str, number: int = 1, **values: Any) -> Series:
    return Series(number, text, text.lower(), (), **{**WHOLE, **values})


@pytest.mark.parametrize(
    ("text", "values", "column"),
    [
        ("t1_mprage_sag_p2_iso", T1, "t1"),
        ("t1_mpr_tra_gk_v4", T1, "t1"),
        ("Ax T1 FLAIR", {"echo_time": 24.0, "repetition_time": 2400.0, "inversion_time": 900.0}, "t1"),
        ("T1 SE ax", {"echo_time": 12.0, "repetition_time": 550.0, "sequence": ("SE",)}, "t1"),
        ("Sag BRAVO", {"echo_time": 3.2, "repetition_time": 8.0, "sequence": ("GR",)}, "t1"),
        ("t1_mprage_sag_p2_iso_KM", T1, "t1c"),
        ("Ax T1 +C", T1, "t1c"),
        ("T1 post Gd", T1, "t1c"),
        ("t1_se_tra_gd", {}, "t1c"),
        ("T1CE", {}, "t1c"),
        ("3D T1 TFE", {**T1, "agent": "Gadovist"}, "t1c"),
        ("AX T1 PRE", T1, "t1"),
        ("T1 without contrast", T1, "t1"),
        ("T1 non-contrast", T1, "t1"),
        ("t1 nativ", T1, "t1"),
        ("T1 pre-op navigation", T1, "t1"),
        ("T1 cor", T1, "t1"),
        ("t2_tse_tra", T2, "t2"),
        ("Ax T2 FSE", T2, "t2"),
        ("T2 post Gd", T2, "t2"),
        ("t2_tirm_tra_dark-fluid", FLAIR, "flair"),
        ("Ax T2 FLAIR", FLAIR, "flair"),
        ("FLAIR km", {**FLAIR, "agent": "Dotarem"}, "flair"),
        ("ep2d_diff_3scan_trace_ADC", {}, "adc"),
        ("resolve", {"image_type": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC")}, "adc"),
        ("ep2d_diff_64dir", {"b_values": (0.0, 1000.0)}, "dti"),
        ("DTI 30 dir", {"b_values": (0.0, 1000.0)}, "dti"),
        ("FET", {"modality": "PT"}, "pet"),
        ("axial brain", FLAIR, "flair"),
        ("axial brain", T2, "t2"),
        ("axial brain", T1, "t1"),
        ("axial brain", {**T1, "agent": "Dotarem"}, "t1c"),
        ("localizer", T1, ""),
        ("AAHScout", T1, ""),
        ("t1 tra", {**T1, "image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, ""),
        ("t2*_fl2d_hemo", {}, ""),
        ("SWI_Images", {}, ""),
        ("TOF 3D", {}, ""),
        ("ep2d_perf", {}, ""),
        ("T1 subtraction", {}, ""),
        ("t1_mprage", {**T1, "image_type": ("ORIGINAL", "PRIMARY", "P", "ND")}, ""),
        ("ep2d_diff_FA", {"b_values": (0.0, 1000.0)}, ""),
        ("DWI b1000", {"b_values": (1000.0,)}, ""),
        ("t1_tse_spine", {}, ""),
        ("axial brain", {}, ""),
        ("t1", T2, ""),
        ("T1 pre", {**T1, "agent": "Gadovist"}, ""),
        ("head", {"modality": "CT"}, ""),
        ("screen shot", {"shape": (0, 0, 0), "fault": "no image with a position in space"}, ""),
        ("t1", {"shape": (512, 512, 1), "fault": "a single slice"}, ""),
    ],
)
def test_column_of_a_series(text: str, values: dict[str, Any], column: str) -> None:
    found, reason = recognise(series(text, **values))
    assert found == column, reason
    assert reason


@pytest.mark.parametrize("agent", ["none", "No", "0", ""])
def test_header_that_denies_the_agent(agent: str) -> None:
    assert with_contrast(series("t1", agent=agent)) is False


def test_one_of_several_is_preferred_for_a_reason() -> None:
    def left(*candidates: Series) -> list[int]:
        kept, dropped = narrow(candidates)
        assert len(kept) + len(dropped) == len(candidates)
        return [s.number for s in kept]

    thin, thick = series("t1 gd", 1), series("t1 gd", 2, **THICK)
    assert left(thick, thin) == [1]
    assert left(thin, series("t1 gd", 2, image_type=("DERIVED", "SECONDARY", "MPR"))) == [1]
    assert left(series("t1", 2, image_type=("DERIVED", "SECONDARY", "MPR"))) == [2]
    assert left(thin, series("t1 gd", 2, spacing=(0.3, 0.3, 1.0))) == [1]  # 72 mm wide: sella
    assert left(thin, series("t1 gd", 2, image_type=("ORIGINAL", "PRIMARY", "M", "DIS3D"))) == [2]
    assert left(thin, series("t1 gd", 2, fault="1 of its slices is missing")) == [1]
    assert left(thin, series("t1 gd", 2)) == [1, 2]
    assert left(thin, series("t1 gd", 2, volumes=40)) == [1]  # uptake over time
    assert left(thick, series("t1 gd cor", 3, **THICK)) == [2, 3]


def test_mixed_exam_is_sorted_and_ambiguity_kept() -> None:
    exam = [
        series("localizer", 1),
        series("t1_mprage", 2, **T1),
        series("t2_tse", 3, **T2, **THICK),
        series("flair", 4, **FLAIR),
        series("t1_mprage_gd", 5, **T1),
        series("t1_mprage_gd MPR cor", 6, **T1, image_type=("DERIVED", "SECONDARY", "MPR")),
        series("t1_mprage_gd", 7, **T1),
    ]
    columns, verdicts = sort_exam(exam)
    assert {c: [s.number for s in found] for c, found in columns.items()} == {
        "t1": [2],
        "t2": [3],
        "flair": [4],
        "t1c": [5, 7],
    }
    assert {v.series.number: v.reason for v in verdicts} == {
        1: "localizer",
        6: "t1c: derived from another series",
    }


def test_folder_of_one_column() -> None:
    def chosen(column: str, *found: Series) -> tuple[list[int], bool]:
        left, _, doubt = choose_one(found, column)
        return [s.number for s in left], doubt

    # The column is believed where the header is silent on contrast agent, and doubted where it says otherwise.
    assert chosen("t1c", series("t1_mprage", **T1)) == ([1], False)
    assert chosen("t1", series("t1_mprage_gd", **T1)) == ([1], True)
    assert chosen("t1", series("t2_tse", **T2)) == ([1], True)
    assert chosen("t2", series("what", **WHOLE)) == ([1], False)
    assert chosen("t2", series("t2_tse", 1), series("localizer", 2), series("t1", 3)) == ([1], False)
    assert chosen("t2", series("t2_tse", 1), series("t2_tse", 2)) == ([1, 2], False)
    assert chosen("t2", series("report", 1, shape=(0, 0, 0))) == ([], False)


def stack(positions: list[float], oblique: bool = True) -> list[Frame]:
    row, column = (np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])) if oblique else np.eye(3)[:2]
    normal = np.cross(row, column)
    origin = np.array([10.0, -20.0, 30.0])
    return [
        Frame(i, origin + p * normal, np.r_[row, column], (1.0, 1.0), None)
        for i, p in enumerate(positions, start=1)
    ]


def test_slices_are_checked() -> None:
    even = [6.0 * i for i in range(10)]
    assert check_slices(stack(even)) == (10, pytest.approx(6), 1, "")
    assert check_slices(stack(even[::-1])) == (10, pytest.approx(6), 1, "")
    assert check_slices(stack(even * 3)) == (10, pytest.approx(6), 3, "")
    assert check_slices(stack(even[:4] + even[5:]))[3] == (
        "1 of its slices is missing between 18 mm (image 4) and 30 mm (image 5), others lie 6 mm apart"
    )
    assert "2 of its slices are missing" in check_slices(stack(even[:4] + even[6:]))[3]
    assert check_slices(stack([*even[:9], 56.0]))[3].startswith(
        "slices are not evenly spaced: 8 mm between 48 mm"
    )
    assert check_slices(stack(even * 2 + even[1:]))[3] == "2 images at 0 mm (image 1), 3 at other positions"
    assert check_slices(stack(even) + stack(even, oblique=False))[::3] == (
        0,
        "slices of several orientations (a localizer?)",
    )
    tilted = [
        Frame(f.instance, f.position + np.array([0, 0, 0.5 * i]), f.orientation, f.spacing, None)
        for i, f in enumerate(stack(even))
    ]
    assert check_slices(tilted)[3] == "slices are shifted against each other (gantry tilt)"


def test_description_loses_names_and_long_numbers() -> None:
    header = {
        "PatientName": "Muster^Anna Maria",
        "PatientID": "K-77123",
        "InstitutionName": "St. Elsewhere Hospital",
    }
    text = "t1_mpr_MUSTER anna 77123 19601231 Elsewhere gd"
    assert remove_identity(text, header) == "t1_mpr_* * * * * gd"


def test_mosaic_of_a_siemens_diffusion_series() -> None:
    def header(volume: int) -> Dataset:
        dataset = Dataset()
        values: dict[str, Any] = {
            "ImageType": ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "MOSAIC"],
            "Modality": "MR",
            "SeriesNumber": 5,
            "SeriesDescription": "ep2d_diff",
            "InstanceNumber": volume,
            "Rows": 6 * 96,
            "Columns": 6 * 96,
            "PixelSpacing": [2.5, 2.5],
            "SliceThickness": 3.0,
            "ImagePositionPatient": [-700.0, -720.0, -60.0],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        }
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0A, "US", 33)
        block.add_new(0x0C, "IS", 1000 * (volume > 1))
        return dataset

    series = _describe_series([(Path(f"{n}"), header(n)) for n in range(1, 14)])
    assert (series.shape, series.volumes, series.spacing) == ((96, 96, 33), 13, (2.5, 2.5, 3.0))
    assert series.b_values == (0, 1000)
    assert (series.fault, recognise(series)[0]) == ("", "dti")


def test_private_b_value_counts_under_its_makers_mark_only() -> None:
    dataset = Dataset()
    dataset.private_block(0x0019, "ANOTHER MAKER", create=True).add_new(0x0C, "IS", 700)
    assert _b_value(dataset, None) is None
    dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [1000000800, 8, 0, 0])
    assert _b_value(dataset, None) == 800
