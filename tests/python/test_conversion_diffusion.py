"""Diffusion maps against closed forms: a tensor that is known gives the signal, which gives the tensor back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from small_exam import run_command, save, write_json

from predictgbm.conversion.diffusion import determines_tensor, diffusion_maps
from predictgbm.images import ImageError, read_image
from predictgbm.simulation.dicom import write_series

SHAPE = (6, 5, 4)


def tensors(seed: int = 0) -> NDArray[np.float64]:
    """Random positive tensors in mm2/s, shape (*SHAPE, 3, 3), in RAS axes."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(int(np.prod(SHAPE)), rng=seed).as_matrix()
    eigenvalues = rng.uniform(0.2e-3, 2.5e-3, (len(turn), 3))
    return np.einsum("nij,nj,nkj->nik", turn, eigenvalues, turn).reshape(*SHAPE, 3, 3)


def signal(b: NDArray[np.float64], directions: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Stejskal and Tanner (1965): S = S0 exp(-b g'Dg)."""
    exponent = np.einsum("ni,xyzij,nj->xyzn", directions, tensors(seed), directions) * b
    return 1000 * np.exp(-exponent)


def sphere(n: int) -> NDArray[np.float64]:
    """Directions spread over a half of the sphere (golden spiral)."""
    i = np.arange(n) + 0.5
    z, angle = 1 - i / n, np.pi * (1 + 5**0.5) * i
    return np.c_[np.cos(angle) * np.sqrt(1 - z**2), np.sin(angle) * np.sqrt(1 - z**2), z]


def six(tensor: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([tensor[..., i, j] for i, j in ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))], axis=-1)


@pytest.mark.parametrize("count", [6, 30])
def test_tensor_and_mean_diffusivity_of_a_known_tensor(count: int) -> None:
    directions = np.r_[np.zeros((2, 3)), sphere(count)]
    b = np.r_[0.0, 5.0, np.full(count, 1000.0)]
    adc, tensor = diffusion_maps(signal(b, directions), b, directions)
    assert tensor is not None
    np.testing.assert_allclose(tensor, 1e6 * six(tensors()), rtol=0, atol=8)  # b = 5 counts as 0
    np.testing.assert_allclose(adc, 1e6 * np.trace(tensors(), axis1=-2, axis2=-1) / 3, rtol=0.005)


def test_high_b_values_are_left_out() -> None:
    directions = np.r_[np.zeros((1, 3)), sphere(12), sphere(12)]
    b = np.r_[0.0, np.full(12, 1000.0), np.full(12, 3000.0)]
    data = signal(b, directions)
    data[..., 13:] *= 3  # as if the noise floor held the signal up
    adc, tensor = diffusion_maps(data, b, directions)
    assert tensor is not None
    np.testing.assert_allclose(tensor, 1e6 * six(tensors()), rtol=0, atol=1)
    np.testing.assert_allclose(adc, 1e6 * np.trace(tensors(), axis1=-2, axis2=-1) / 3, rtol=1e-4)


def test_three_orthogonal_directions_give_the_mean_diffusivity() -> None:
    directions = np.r_[np.zeros((1, 3)), np.eye(3)]
    b = np.array([0.0, 1000, 1000, 1000])
    adc, tensor = diffusion_maps(signal(b, directions), b, directions)
    assert tensor is None
    np.testing.assert_allclose(adc, 1e6 * np.trace(tensors(), axis1=-2, axis2=-1) / 3, rtol=1e-4)


def test_trace_weighted_volumes_and_background() -> None:
    b = np.array([0.0, 500.0, 1000.0])
    data = np.zeros((*SHAPE, 3))
    data[1:] = 800 * np.exp(-b * 0.8e-3)
    adc, tensor = diffusion_maps(data, b, np.zeros((3, 3)))
    assert tensor is None
    assert (adc[0] == 0).all()
    np.testing.assert_allclose(adc[1:], 800, rtol=1e-5)


def test_directions_that_determine_no_tensor() -> None:
    assert determines_tensor(sphere(6))
    assert determines_tensor(np.r_[sphere(6), -sphere(6)])
    assert not determines_tensor(sphere(5))
    assert not determines_tensor(np.r_[sphere(3), -sphere(3), sphere(3)])
    angle = np.linspace(0, 2 * np.pi, 20)
    assert not determines_tensor(np.c_[np.cos(angle), np.sin(angle), np.ones(20)] / 2**0.5)


def test_too_few_b_values_are_refused() -> None:
    for b in ([1000.0, 1000.0], [0.0, 3000.0], [0.0, 0.0]):
        with pytest.raises(ImageError, match="expected at least two"):
            diffusion_maps(np.ones((*SHAPE, 2)), np.array(b), np.zeros((2, 3)))


def convert_exam(tmp_path: Path, files: dict[str, Path]) -> str:
    meta = {"id": "sub-007_ses-fu1", "patient": "007", "session": "fu1", "role": "followup"}
    names = {column: str(path) for column, path in files.items()} | {"registered_seg": "unread.nii.gz"}
    row = {"line": 2, "meta": meta, "space": "native", "files": names}
    failure = tmp_path / "failure.json"
    options = ["--row", write_json(tmp_path / "row.json", row), "--out-dir", tmp_path / "native"]
    options += ["--quality", tmp_path / "q.json", "--picture", tmp_path / "p.png", "--failure", failure]
    assert run_command("convert_exam.py", *options, *files.values(), "unread.nii.gz") == 0
    return str(json.loads(failure.read_text("utf-8"))["reason"]) if failure.exists() else ""


@pytest.mark.parametrize("axes", ["LAS", "RAS", "PIR"])
def test_tensor_is_in_ras_axes_whatever_the_order_of_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: str
) -> None:
    monkeypatch.chdir(tmp_path)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(axes))
    )
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (10, 20, -15), degrees=True).as_matrix() * 2.0
    directions = np.r_[np.zeros((1, 3)), sphere(20)]
    b = np.r_[0.0, np.full(20, 900.0)]
    data = np.stack(
        [nib.orientations.apply_orientation(v, turn) for v in np.moveaxis(signal(b, directions), -1, 0)],
        axis=-1,
    ).astype(np.float32)
    turned = affine @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    # FSL: along the image's axes, the first reversed where the voxel order is right-handed.
    table = directions @ (turned[:3, :3] / 2)
    table *= (-1 if np.linalg.det(turned[:3, :3]) > 0 else 1, 1, 1)
    files = {"dti": save(tmp_path / "dti.nii.gz", data, turned), "t1c": tmp_path / "t1c.nii.gz"}
    save(files["t1c"], np.arange(120, dtype=np.int16).reshape(SHAPE), affine)
    files |= {"dti_bval": tmp_path / "dti.bval", "dti_bvec": tmp_path / "dti.bvec"}
    np.savetxt(files["dti_bval"], b[None])
    np.savetxt(files["dti_bvec"], table.T)
    assert convert_exam(tmp_path, files) == ""
    written = nib.load(tmp_path / "native" / "tensor.nii.gz")
    tensor = np.asarray(written.dataobj)
    expected = np.stack(
        [nib.orientations.apply_orientation(v, turn) for v in np.moveaxis(1e6 * six(tensors()), -1, 0)],
        axis=-1,
    )
    np.testing.assert_allclose(tensor, expected, rtol=0, atol=2)
    np.testing.assert_allclose(written.affine, turned, atol=1e-4)
    adc = read_image(tmp_path / "native" / "adc.nii.gz").data
    np.testing.assert_allclose(adc, expected[..., [0, 2, 5]].mean(-1), rtol=1e-3)


def test_diffusion_series_from_dicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directions = np.r_[np.zeros((1, 3)), sphere(12)]
    b = np.r_[0.0, np.full(12, 1000.0)]
    # Columns to the left, rows to the back: the patient axes of DICOM are LPS.
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    folder = tmp_path / "dti"
    for n, (value, direction) in enumerate(zip(b, directions, strict=True)):
        values: dict[str, Any] = {"PatientID": "X", "SeriesNumber": 9, "SeriesDescription": "ep2d_diff_dti"}
        values |= {"Manufacturer": "SIEMENS", "AcquisitionNumber": n + 1, "ScanningSequence": "EP"}
        values |= {"DiffusionBValue": float(value), "EchoTime": 90.0, "RepetitionTime": 8000.0}
        if value:
            values["DiffusionGradientOrientation"] = [float(v) for v in direction * (-1, -1, 1)]
        volume = np.rint(10 * signal(b, directions)[..., n]).astype(np.int16)
        for slice_, path in enumerate(write_series(folder, volume, affine, values, prefix=f"V{n:02d}_")):
            header = pydicom.dcmread(path)
            header.InstanceNumber = n * SHAPE[2] + slice_ + 1
            header.save_as(path)
    t1c = save(tmp_path / "t1c.nii.gz", np.arange(120, dtype=np.int16).reshape(SHAPE), affine)
    assert convert_exam(tmp_path, {"dti": folder, "t1c": t1c}) == ""
    tensor = read_image(tmp_path / "native" / "adc.nii.gz")
    expected = 1e6 * np.trace(tensors(), axis1=-2, axis2=-1) / 3
    order = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.io_orientation(tensor.affine))
    np.testing.assert_allclose(tensor.data, nib.orientations.apply_orientation(expected, order), rtol=0.01)
    six_maps = np.asarray(nib.load(tmp_path / "native" / "tensor.nii.gz").dataobj)
    wanted = [nib.orientations.apply_orientation(v, order) for v in np.moveaxis(1e6 * six(tensors()), -1, 0)]
    np.testing.assert_allclose(six_maps, np.stack(wanted, -1), rtol=0, atol=15)
    table = json.loads((tmp_path / "native" / "conversion.json").read_text("utf-8"))
    assert table["columns"]["adc"]["source"] == "made of dti, DICOM series 9"
    assert table["series"][0]["b_values"] == [0, 1000]
    assert table["series"][0]["volumes"] == 13


def test_diffusion_series_without_b_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dti = save(tmp_path / "dti.nii.gz", np.ones((*SHAPE, 7), np.float32))
    assert "fill in columns dti_bval and dti_bvec" in convert_exam(tmp_path, {"dti": dti})
