"""BraTS algorithms as containers, proved with images that obey the same contract."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from predictgbm.images import Image, ImageError, read_image, write_image
from predictgbm.labels import LabelError
from predictgbm.segmentation.brats import (
    AlgorithmError,
    find_output,
    load_algorithms,
    make_algorithm,
    read_output,
    to_brats,
)
from predictgbm.segmentation.fusion import TIE_ORDER, majority_vote

AFFINE = np.array([[4.0, 0, 0, -30], [0, 4, 0, -20], [0, 0, 4, 10], [0, 0, 0, 1]])
SHAPE = (12, 14, 10)
BASE: dict[str, Any] = {
    "name": "made",
    "image": "localhost/predictgbm-brats:test",
    "phase": "preop",
    "call": "mlcube",
    "suffix": {"preop": "000"},
    "labels": "1:1,2:2,3:3",
    "gpu": "optional",
    "shm": "8m",
    "root": True,
}


def command(
    name: str, *arguments: object, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "bin" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )


# --- voting ---------------------------------------------------------------------------------------------------------

votes = st.integers(1, 5).flatmap(
    lambda n: st.lists(arrays(np.uint8, (3, 2, 2), elements=st.integers(0, 4)), min_size=n, max_size=n)
)


@given(votes, st.randoms(use_true_random=False))
def test_vote_does_not_depend_on_the_order(segmentations: list[np.ndarray], random: Any) -> None:
    expected = majority_vote(segmentations)
    random.shuffle(segmentations)
    np.testing.assert_array_equal(majority_vote(segmentations), expected)


@given(arrays(np.uint8, (3, 2, 2), elements=st.integers(0, 4)), st.integers(1, 5))
def test_identical_segmentations_return_themselves(labels: np.ndarray, times: int) -> None:
    np.testing.assert_array_equal(majority_vote([labels] * times), labels)


@given(votes)
def test_vote_is_what_counting_by_hand_gives(segmentations: list[np.ndarray]) -> None:
    result = majority_vote(segmentations)
    for index in np.ndindex(result.shape):
        given = [int(s[index]) for s in segmentations]
        best = max(given.count(v) for v in given)
        assert result[index] == next(v for v in TIE_ORDER if given.count(int(v)) == best)


def test_vote_refuses_nothing_and_other_shapes() -> None:
    for wrong in ([], [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8)]):
        with pytest.raises(ValueError, match="one shape"):
            majority_vote(wrong)


def test_fuse_command_matches_voxel_orders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, SHAPE).astype(np.uint8)
    write_image(tmp_path / "a.nii.gz", labels, AFFINE)
    turned = to_brats(Image(labels, AFFINE))
    write_image(tmp_path / "b.nii.gz", turned.data, turned.affine)
    done = command(
        "fuse_segmentations.py", "--out", tmp_path / "f.nii.gz", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    )
    assert done.returncode == 0, done.stderr
    fused = read_image(tmp_path / "f.nii.gz", np.uint8)
    np.testing.assert_array_equal(fused.data, labels)
    np.testing.assert_allclose(fused.affine, AFFINE)


# --- the list ---------------------------------------------------------------------------------------------------------


def test_shipped_list_is_valid_and_has_algorithms_for_both_phases() -> None:
    algorithms = load_algorithms(ROOT / "assets" / "tumor_algorithms.yml")
    assert {a.phase for a in algorithms.values()} == {"preop", "followup", "both"}
    for algorithm in algorithms.values():
        assert algorithm.call == ("direct" if algorithm.year >= 2025 else "mlcube")
        assert algorithm.citation
        # Before 2024 there was no label 4; since then it is the cavity.
        assert ("4:4" in algorithm.labels) == (algorithm.year >= 2024)


def test_calls_of_the_two_conventions() -> None:
    algorithms = load_algorithms(ROOT / "assets" / "tumor_algorithms.yml")
    mist = algorithms["BraTS24_3"]
    assert mist.arguments == [
        "infer",
        "--data_path=/mlcube_io0",
        "--output_path=/mlcube_io2",
        "--mist_models=/mlcube_io1/models",
        "--mist_config=/mlcube_io1/config.json",
        "--mist_dataset=/mlcube_io1/dataset.json",
        "--parameters_file=/mlcube_io3/parameters.yml",
    ]
    assert "--checkpoint_dir=/mlcube_io1" in algorithms["BraTS23_3"].arguments
    both = algorithms["BraTS25_1"]
    assert both.arguments == []
    assert both.mounts == {"input": "/input:ro", "output": "/output"}
    assert both.subject("preop") == "BraTS-GLI-00000-000"
    assert both.subject("followup") == "BraTS-GLI-00000-100"
    with pytest.raises(AlgorithmError, match="choose an algorithm of its phase"):
        mist.subject("preop")


def test_image_is_asked_for_by_digest() -> None:
    digest = "sha256:" + "0" * 64
    entry = BASE | {"image": "host:5000/team/name:tag", "digest": digest}
    assert make_algorithm(entry).reference == f"host:5000/team/name@{digest}"
    assert make_algorithm(BASE).reference == BASE["image"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"call": "other"}, "call is 'other'"),
        ({"phase": "later"}, "phase is 'later'"),
        ({"phase": "both"}, "choose an algorithm of its phase"),
        ({"labels": "x"}, "label convention 'x'"),
        ({"digest": "latest"}, "expected sha256"),
        ({"colour": "red"}, "unknown field colour"),
    ],
)
def test_faults_of_an_entry_are_named(change: dict[str, str], said: str) -> None:
    with pytest.raises(AlgorithmError, match=said):
        make_algorithm(BASE | change)


def test_missing_fields_and_doubles_are_named(tmp_path: Path) -> None:
    with pytest.raises(AlgorithmError, match="suffix"):
        make_algorithm({k: v for k, v in BASE.items() if k != "suffix"})
    file = tmp_path / "list.yml"
    file.write_text(json.dumps({"algorithms": [BASE, BASE]}))
    with pytest.raises(AlgorithmError, match="more than once"):
        load_algorithms(file)
    file.write_text("[]")
    with pytest.raises(AlgorithmError, match="not a list of algorithms"):
        load_algorithms(file)


# --- input and output ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["RAS", "LPS", "ASL"])
def test_brats_voxel_order_keeps_every_voxel_at_its_place(axes: str) -> None:
    data = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    turn = nib.orientations.axcodes2ornt(axes)
    array = nib.orientations.apply_orientation(
        data, np.array([[np.flatnonzero(turn[:, 0] == k)[0], 1] for k in range(3)])
    )
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (to, sign) in enumerate(turn.astype(int)):
        affine[to, axis] = 2.0 * sign
    turned = to_brats(Image(array, affine))
    assert "".join(nib.aff2axcodes(turned.affine)) == "LPS"
    for index in ((0, 0, 0), (1, 2, 3), (3, 5, 2)):
        where = affine @ [*index, 1]
        there = tuple(np.rint(np.linalg.solve(turned.affine, where))[:3].astype(int))
        assert turned.data[there] == array[index]


def test_output_is_found_and_checked(tmp_path: Path) -> None:
    algorithm = make_algorithm(BASE)
    reference = Image(np.zeros(SHAPE, np.float32), AFFINE)
    subject = "BraTS-GLI-00000-000"
    with pytest.raises(ImageError, match="wrote nothing"):
        find_output(tmp_path, subject)
    for name in ("x", "y"):
        write_image(tmp_path / f"{name}.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    with pytest.raises(ImageError, match=r"wrote x\.nii\.gz, y\.nii\.gz"):
        find_output(tmp_path, subject)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 3, 4] = 3
    turned = to_brats(Image(labels, AFFINE))
    write_image(tmp_path / f"{subject}.nii.gz", turned.data, turned.affine)
    np.testing.assert_array_equal(read_output(find_output(tmp_path, subject), algorithm, reference), labels)
    old = make_algorithm(BASE | {"labels": "brats2021"})
    with pytest.raises(LabelError, match="unknown label 3"):
        read_output(tmp_path / f"{subject}.nii.gz", old, reference)
    write_image(tmp_path / "other.nii.gz", labels, AFFINE + np.eye(4) * [0, 0, 0, 0] + np.diag([1, 0, 0, 0]))
    with pytest.raises(ImageError, match="not on one grid"):
        read_output(tmp_path / "other.nii.gz", algorithm, reference)


# --- containers -------------------------------------------------------------------------------------------------------

SCRIPT = """#!/bin/sh
set -e
case "$1" in
infer)
    test "$2 $3" = "--data_path=/mlcube_io0 --output_path=/mlcube_io2"
    test "$4 $5 $#" = "--net=/mlcube_io1/net.txt --parameters_file=/mlcube_io3/parameters.yml 5"
    test "$(cat /mlcube_io1/net.txt)" = weights
    grep -q "overlap: 0.5" /mlcube_io3/parameters.yml
    in=/mlcube_io0 out=/mlcube_io2 ;;
*) test $# = 0; in=/input out=/output ;;
esac
if touch $in/written 2>/dev/null; then echo the input can be written; exit 8; fi
if grep -v -e Iface -e lo /proc/net/route | grep -q .; then echo there is a network; exit 9; fi
df -k /dev/shm | grep -q 8192 || { echo shared memory has another size; exit 10; }
id=$(ls $in)
for name in t1n t1c t2w t2f; do test -s $in/$id/$id-$name.nii.gz; done
case $id in BraTS-GLI-00000-100) echo this network was trained before treatment >&2; exit 7; esac
cp $in/$id/$id-t2f.nii.gz $out/$id.nii.gz
"""


@pytest.fixture(scope="module")
def image(podman: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image by the contract of the BraTS containers; its segmentation is the FLAIR it is given."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "run.sh").write_text(SCRIPT)
    (folder / "Containerfile").write_text(
        f'FROM {podman["BASE_IMAGE"]}\nCOPY --chmod=755 run.sh /run.sh\nENTRYPOINT ["/run.sh"]\n'
    )
    name = str(BASE["image"])
    subprocess.run(
        ["podman", "build", "-q", "-t", name, folder], env=podman, check=True, stdout=subprocess.DEVNULL
    )
    return name


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    """An exam whose FLAIR is a segmentation, so that it is seen where each voxel goes."""
    folder = tmp_path / "exam"
    rng = np.random.default_rng(1)
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:8, 4:9, 2:6] = rng.integers(0, 4, (5, 5, 4))
    for name in ("t1", "t1c", "t2"):
        write_image(folder / f"{name}.nii.gz", rng.random(SHAPE).astype(np.float32) + 1, AFFINE)
    write_image(folder / "flair.nii.gz", labels, AFFINE)
    write_image(folder / "brain_mask.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)
    return folder


def run_brats(
    podman: dict[str, str], exam: Path, entry: dict[str, Any], phase: str = "preop", *more: object
) -> tuple[dict[str, Any] | None, str]:
    folder = exam.parent
    (folder / "algorithm.json").write_text(json.dumps(entry))
    done = command(
        "run_brats.py",
        *("--exam", exam, "--phase", phase, "--algorithm", folder / "algorithm.json", "--engine", "podman"),
        *("--device", "cpu", "--work", folder / "work", "--out", folder / "out.nii.gz"),
        *("--quality", folder / "quality.json", "--picture", folder / "qc.png"),
        *("--failure", folder / "failure.json", "--patient", "001", "--session", phase, *more),
        env=podman,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    failure = folder / "failure.json"
    return json.loads(failure.read_text()) if failure.exists() else None, done.stdout + done.stderr


DIRECT = BASE | {"phase": "both", "call": "direct", "suffix": {"preop": "000", "followup": "100"}}
MLCUBE = BASE | {"weights": {"zenodo": "0", "arguments": {"net": "net.txt"}}, "parameters": {"overlap": 0.5}}


@pytest.mark.podman
@pytest.mark.parametrize("call", ["direct", "mlcube"])
def test_container_of_each_convention(podman: dict[str, str], image: str, exam: Path, call: str) -> None:
    more: tuple[object, ...] = ()
    if call == "mlcube":
        weights = exam.parent / "weights"
        weights.mkdir()
        (weights / "net.txt").write_text("weights")
        more = ("--weights", weights)
    failure, said = run_brats(podman, exam, DIRECT if call == "direct" else MLCUBE, "preop", *more)
    assert failure is None, said
    out = read_image(exam.parent / "out.nii.gz", np.uint8)
    np.testing.assert_array_equal(out.data, read_image(exam / "flair.nii.gz", np.uint8).data)
    np.testing.assert_allclose(out.affine, AFFINE)
    quality = json.loads((exam.parent / "quality.json").read_text())
    values = {m["name"]: m["value"] for m in quality["measures"]}
    assert values["enhancing_ml"] == pytest.approx(np.count_nonzero(out.data == 3) * 0.064)
    assert "made" in quality["method"]
    assert (exam.parent / "qc.png").stat().st_size > 1000


@pytest.mark.podman
def test_container_that_fails_is_a_failure_of_the_exam(
    podman: dict[str, str], image: str, exam: Path
) -> None:
    failure, _ = run_brats(podman, exam, DIRECT, "followup")
    assert failure is not None
    assert failure["stage"] == "segment tumour"
    assert failure["patient"] == "001"
    assert failure["kind"] == "crashed"
    assert "exit status 7: this network was trained before treatment" in failure["reason"]
    assert not (exam.parent / "out.nii.gz").exists()


@pytest.mark.podman
def test_unknown_labels_missing_weights_and_missing_contrast(
    podman: dict[str, str], image: str, exam: Path
) -> None:
    failure, _ = run_brats(podman, exam, DIRECT | {"labels": "brats2021"})
    assert failure is not None
    assert "unknown label 3" in failure["reason"]
    failure, _ = run_brats(podman, exam, MLCUBE)
    assert failure is not None
    assert "Zenodo record 0" in failure["reason"]
    (exam / "t2.nii.gz").unlink()
    failure, _ = run_brats(podman, exam, DIRECT)
    assert failure is not None
    assert failure["kind"] == "missing_input"
    assert "exam lacks t2" in failure["reason"]


@pytest.mark.podman
def test_check_says_what_is_here(podman: dict[str, str], image: str, tmp_path: Path) -> None:
    listed = tmp_path / "list.yml"

    def check(entry: dict[str, Any], *more: object) -> subprocess.CompletedProcess[str]:
        listed.write_text(json.dumps({"algorithms": [entry]}))
        return command(
            "check_tumor_algorithm.py",
            "made",
            "--algorithms",
            listed,
            "--engine",
            "podman",
            *more,
            env=podman,
        )

    done = check(BASE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok       engine:  podman" in done.stdout
    assert f"ok       image:   {image}: " in done.stdout
    assert "not pinned" in done.stdout
    identity = subprocess.run(
        ["podman", "image", "inspect", "--format", "{{.Id}}", image],
        env=podman,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert check(BASE | {"digest": f"sha256:{identity}"}).returncode == 0
    other = check(BASE | {"digest": "sha256:" + "0" * 64})
    assert other.returncode == 1
    assert "MISSING  digest:" in other.stdout
    absent = check(BASE | {"image": "localhost/predictgbm-absent:0"})
    assert absent.returncode == 1
    assert "podman pull localhost/predictgbm-absent:0" in absent.stdout
    assert check(MLCUBE).returncode == 1
    (tmp_path / "net.txt").write_text("weights")
    assert check(MLCUBE, "--weights", tmp_path).returncode == 0
    if shutil.which("nvidia-smi") is None:
        assert "MISSING  GPU:" in check(BASE | {"gpu": "required"}).stdout
    wrong = command("check_tumor_algorithm.py", "none", "--algorithms", listed)
    assert wrong.returncode == 2
    assert "it has made" in wrong.stderr


def test_without_an_engine_the_reason_says_so(exam: Path) -> None:
    folder = exam.parent / "bin"
    folder.mkdir()
    for program in ("bash", "sed", "id"):
        (folder / program).symlink_to(str(shutil.which(program)))
    failure, _ = run_brats(os.environ | {"PATH": str(folder)}, exam, DIRECT)
    assert failure is not None
    assert "no container engine answers" in failure["reason"]
