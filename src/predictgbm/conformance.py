"""Whether a model keeps the contract of docs/add_a_model.md: it is run on small exams, and every fault is told at once.

The exams are phantoms (:mod:`predictgbm.simulation.phantom`); the model is started by the very command that the
pipeline starts it by. Nothing here judges how good a model is.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from predictgbm.exam import SUFFIXES, Exam, file_name
from predictgbm.images import DAMAGED, Image, ImageError, conform, describe, read_image, write_image
from predictgbm.labels import CORE, region
from predictgbm.models import check_map
from predictgbm.planning import make_plan, soc_mask
from predictgbm.simulation.phantom import make_phantom

PASS, WARN, FAIL, SKIP = "pass", "warn", "fail", "not checked"
#: Inputs that a model must do without, unless it says that it needs them.
OPTIONAL = ("adc", "pet", "tensor")
OUTPUT = "/mlcube_io1/00000.nii.gz"
#: Variable by which the processes of a model are known among all others.
MARK = "PREDICTGBM_CHECK"
#: What programs say that miss the network.
NETWORK_WORDS = re.compile(
    r"resolve|resolution|getaddrinfo|network is unreachable|connection (refused|error)|urlopen|max retries",
    re.I,
)
#: Two maps are one if no voxel differs by more than this share of their range.
EQUAL = 1e-5
#: Two plans are nearly one if they share this part of their voxels.
NEARLY = 0.99
#: From this share of equal values at its border on, a plan is made by distance rather than by the model.
TIED = 0.1


@dataclass(frozen=True)
class Check:
    """One line of the result: what was asked, how it came out, what was seen, and what to do about it."""

    name: str
    status: str
    seen: str = ""
    remedy: str = ""


@dataclass
class Trial:
    """What one run of a model left.

    Attributes
    ----------
    exam : Exam
        What it was given.
    status : int or None
        Exit status; None if it was ended because its time was up.
    seconds : float
    peak_bytes : int or None
        Most memory that its processes held at once; None where they cannot be seen.
    map : Path or None
        The map it wrote.
    log : str
        Last lines it printed.
    strays : list of str
        What it left elsewhere than in its one file.
    """

    exam: Exam
    status: int | None
    seconds: float
    peak_bytes: int | None = None
    map: Path | None = None
    log: str = ""
    strays: list[str] = field(default_factory=list)

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        last = f": {self.log}" if self.log else ""
        if self.status is None:
            return f"was ended after {self.seconds:.0f} s{last}"
        return f"exit status {self.status}{last}"

    @cached_property
    def fault(self) -> str | None:
        """Why the pipeline could not plan on its result; None if it can."""
        if self.status != 0:
            return self.ended
        if self.map is None:
            return f"wrote no {OUTPUT}{f': {self.log}' if self.log else ''}"
        try:
            check_map(read_image(self.map), self.exam.reference)
        except ImageError as error:
            return str(error).replace(str(self.map), OUTPUT).replace(str(self.exam.folder), "the exam")
        return None


def write_exam(folder: Path, spacing: Sequence[float], codes: str, *, tumor: bool, optional: bool) -> Exam:
    """Write a phantom as a prepared exam."""
    for name, image in make_phantom(spacing, codes, tumor=tumor).items():
        if optional or name not in OPTIONAL:
            write_image(folder / file_name("sub-phantom_ses-pre_space-SRI24", name), image.data, image.affine)
    return Exam(folder)


@dataclass(frozen=True)
class Runner:
    """Starts a model as the pipeline does.

    Attributes
    ----------
    script : Path
        ``bin/run_container_model.sh``.
    engine : str
        As ``--external_engine``, or ``command``.
    target : str
        Image, or command line.
    folder : Path
        Empty folder for what is made.
    timeout : float
        Longest run, in s.
    gpu : bool
    """

    script: Path
    engine: str
    target: str
    folder: Path
    timeout: float = 60.0
    gpu: bool = False

    @property
    def isolated(self) -> bool:
        """Whether runs have no network: always in a container; of a command where the kernel allows it."""
        alone = ["unshare", "--map-current-user", "--net", "true"]
        return self.engine != "command" or (
            shutil.which(alone[0]) is not None and not subprocess.run(alone, capture_output=True).returncode
        )

    def run(self, exam: Exam, *, read_only: bool = False) -> Trial:
        """Run the model once on an exam."""
        name = f"predictgbm-check-{uuid.uuid4().hex[:12]}"
        work = self.folder / name
        work.mkdir()
        # A command runs where its user is, so that its relative paths are right.
        target = (
            f"cd {shlex.quote(str(Path.cwd()))} && {self.target}" if self.engine == "command" else self.target
        )
        options = ["--env", f"{MARK}={name}", "--name", name, *(["--read-only"] if read_only else [])]
        before = _listing(Path.cwd())
        start = time.monotonic()
        process = subprocess.Popen(
            [
                *(self.script, self.engine, target, exam.folder.absolute(), "map.nii.gz", "failure.json"),
                *("phantom", "pre", "model", "gpu" if self.gpu else "cpu"),
            ],
            cwd=work,
            env=os.environ | {"ENGINE_OPTIONS": " ".join(options), "TMPDIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with _MemoryWatch(name) as watch:
            try:
                process.wait(self.timeout)
                ended = True
            except subprocess.TimeoutExpired:
                ended = False
                self._stop(process, name)
        seconds = time.monotonic() - start
        failure = _failure(work)
        log = (
            (work / "container.log").read_text("utf-8", "replace")
            if (work / "container.log").exists()
            else failure
        )
        found = re.search(r"exit status (\d+)", failure)
        # The script itself fails only where it cannot start the model.
        status = int(found[1]) if found else 127 if process.returncode else 0
        made = work / "map.nii.gz"
        trial = Trial(
            exam,
            status if ended else None,
            seconds,
            watch.peak or None,
            made if made.exists() else None,
            " / ".join(line.strip() for line in log.strip().splitlines()[-3:])[-400:],
            _changed_inputs(work / "mlcube_io0", exam),
        )
        others = [path for path in (work / "mlcube_io1").rglob("*") if path.is_file()]
        trial.strays += [f"/mlcube_io1/{path.relative_to(work / 'mlcube_io1')}" for path in others]
        if self.engine == "command":
            trial.strays += [str(path) for path in sorted(_listing(Path.cwd()) - before)]
        return trial

    def _stop(self, process: subprocess.Popen[bytes], name: str) -> None:
        """End a run and the container it may have started."""
        subprocess.run(
            [self.script.with_name("container_engine.sh"), "stop", self.engine, name],
            capture_output=True,
            timeout=60,
        )
        for end in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, end)
                process.wait(5)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        process.wait()


def _changed_inputs(folder: Path, exam: Exam) -> list[str]:
    """Return what a model changed in the folder of its inputs."""
    changed = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.name.removeprefix("00000-").removesuffix(".nii.gz").replace("tumorseg", "tumor_seg")
        source = exam.path(name) if name in SUFFIXES else None
        if source is None or source.read_bytes() != path.read_bytes():
            changed.append(f"/mlcube_io0/{path.relative_to(folder)}")
    return changed


def _listing(folder: Path) -> set[Path]:
    return {path for path in folder.iterdir() if path.name != "__pycache__"}


def _failure(work: Path) -> str:
    path = work / "failure.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError):
        return ""


class _MemoryWatch:
    """Adds up, some times a second, what all processes hold that bear a mark in their environment."""

    def __init__(self, name: str, interval: float = 0.05) -> None:
        self.peak = 0
        self._mark = f"{MARK}={name}".encode()
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            total = 0
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    if self._mark not in (process / "environ").read_bytes().split(b"\0"):
                        continue
                    held = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
                except OSError:
                    # Another user's, or gone.
                    continue
                total += 1024 * int(held[1]) if held else 0
            self.peak = max(self.peak, total)


def check_model(
    runner: Runner,
    *,
    inputs: Sequence[str] = (),
    memory_bytes: float | None = None,
) -> list[Check]:
    """Run a model on phantoms and return how it keeps its contract.

    Parameters
    ----------
    runner
        Starts the model.
    inputs
        What the model says it needs; empty where it says nothing.
    memory_bytes
        Memory that it says it needs for one patient at 1 mm.
    """
    folder = runner.folder
    whole = write_exam(folder / "whole", (4, 4, 4), "LPS", tumor=True, optional=True)
    first = runner.run(whole)
    checks = [_starts(first)]
    if checks[0].status == FAIL:
        return checks
    checks += [*_result(first), _network(first, runner.isolated), *_map_checks(first)]
    if first.map is None:
        # Nothing more can be learned before it gives one.
        return checks
    trials = [first]

    second = runner.run(whole, read_only=True)
    if runner.engine != "command" and first.fault is None:
        if second.fault is None:
            checks.append(Check("works in a read-only image", PASS))
        else:
            remedy = "write to /tmp and /mlcube_io1 only: images are read-only on clusters that run Apptainer"
            checks.append(Check("works in a read-only image", WARN, second.fault, remedy))
            second = runner.run(whole)
    trials.append(second)
    checks.append(_repeats(first, second))

    other = runner.run(write_exam(folder / "other", (3, 3, 5), "RAS", tumor=True, optional=True))
    remedy = "take shape, voxel size and orientation from the affine of the input, and write the map with that affine"
    checks.append(_verdict("another voxel size and orientation", first, other, remedy))

    bare = runner.run(write_exam(folder / "bare", (4, 4, 4), "LPS", tumor=True, optional=False))
    checks.append(_without_optional(first, bare, inputs))

    empty = runner.run(write_exam(folder / "empty", (4, 4, 4), "LPS", tumor=False, optional=True))
    checks.append(_without_tumor(empty))

    trials += [other, bare, empty]
    checks.append(_strays(trials))
    checks.append(_resources(trials, memory_bytes))
    return checks


def _starts(trial: Trial) -> Check:
    if trial.status in (125, 126, 127):
        remedy = "see that the image or command is there under this name, for this processor, and has an entry point"
        return Check("starts", FAIL, trial.ended, remedy)
    return Check("starts", PASS)


def _network(trial: Trial, isolated: bool) -> Check:
    """Judge whether a model asked for the network, which the pipeline shuts off."""
    name = "works without network"
    if trial.fault is None:
        return Check(name, PASS) if isolated else Check(name, SKIP, "the network of a command stays on here")
    if NETWORK_WORDS.search(trial.log):
        return Check(name, FAIL, trial.log, "put weights and everything else that it fetches into the image")
    return Check(name, SKIP)


def _result(trial: Trial) -> list[Check]:
    """Judge exit status and file of a run."""
    remedy = "end with exit status 0 when the map is written; what it printed last is shown here"
    if trial.status != 0:
        if trial.status is None:
            remedy = "see why it does not end; if it is only slow to load, allow more seconds by --timeout"
        return [Check("ends with status 0", FAIL, trial.ended, remedy), Check("writes the map", SKIP)]
    written = Check("writes the map", PASS)
    if trial.map is None:
        seen = f"other files: {', '.join(trial.strays[:3])}" if trial.strays else "no file"
        written = Check("writes the map", FAIL, seen, f"write the map to {OUTPUT}")
    return [Check("ends with status 0", PASS), written]


def _map_checks(trial: Trial) -> list[Check]:
    """Judge a map by everything that the pipeline and the plan ask of it, each by itself."""
    names = (
        "is a 3-D NIfTI image",
        "lies on the grid of the exam",
        "has finite values",
        "differs within the brain",
    )
    if trial.map is None:
        return [Check(name, SKIP) for name in names]
    try:
        image = nib.load(trial.map)
        data = np.asanyarray(image.dataobj)
    except DAMAGED as error:
        return [
            Check(names[0], FAIL, str(error).replace(str(trial.map), OUTPUT), "write NIfTI, .nii.gz"),
            *(Check(n, SKIP) for n in names[1:]),
        ]
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or data.dtype.kind not in "buif":
        seen = f"{data.ndim} dimensions {data.shape}, type {data.dtype}"
        return [
            Check(names[0], FAIL, seen, "write one volume of numbers, best float32"),
            *(Check(n, SKIP) for n in names[1:]),
        ]
    checks = [Check(names[0], PASS, f"{data.dtype}")]
    reference = trial.exam.reference
    score = Image(
        np.nan_to_num(data.astype(np.float64), posinf=0, neginf=0),
        np.asarray(image.affine, np.float64),
        OUTPUT,
    )
    try:
        values: NDArray[Any] | None = conform(score, reference).data
        checks.append(Check(names[1], PASS))
    except ImageError:
        values = None
        seen = f"{describe(score)}; the exam has {describe(reference)}"
        checks.append(
            Check(
                names[1],
                FAIL,
                seen,
                "write the map with shape and affine of the input; resample it back if you work on another grid",
            )
        )
    bad = int((~np.isfinite(data)).sum())
    seen = f"{bad} of {data.size} voxels are NaN or infinite" if bad else ""
    checks.append(
        Check(names[2], FAIL if bad else PASS, seen, "replace them, for example by 0 outside the brain")
    )
    if values is None:
        return [*checks, Check(names[3], SKIP)]
    brain = reference.data != 0
    inside = values[brain]
    if inside.min() == inside.max():
        remedy = "every voxel of the brain needs a score; see that the model finds its inputs"
        return [*checks, Check(names[3], FAIL, f"the whole brain has the value {inside.min():g}", remedy)]
    checks.append(Check(names[3], PASS, f"{inside.min():.4g} to {inside.max():.4g}"))
    if not bad and trial.fault:
        return [*checks, Check("passes the check of the pipeline", FAIL, trial.fault)]
    return [*checks, _ranks(trial, values)]


def _plan(trial: Trial, values: NDArray[Any]) -> tuple[NDArray[np.bool_], int]:
    """Return the plan that a map gives on its exam, and the number of voxels that a plan has."""
    exam = trial.exam
    labels, brain = exam.array("tumor_seg"), exam.array("brain_mask")
    spacing = exam.reference.spacing
    n = int(soc_mask(labels, brain, spacing).sum())
    return make_plan(values.astype(np.float64), region(labels, CORE), brain, spacing, n), n


def _ranks(trial: Trial, values: NDArray[Any]) -> Check:
    """Judge whether a map decides the whole plan, or leaves part of it to the distance from the core."""
    name = "orders the voxels of a whole plan"
    plan, n = _plan(trial, values)
    brain = trial.exam.array("brain_mask")
    positive = int((values[brain] > 0).sum())
    remedy = (
        "do not clip, threshold or round the map: its order far from the tumour decides where the border runs"
    )
    if 0 < positive < n:
        return Check(
            name,
            WARN,
            f"{positive} positive voxels, the plan has {n}: the rest is filled by distance",
            remedy,
        )
    border = values[plan].min()
    tied = int(((values == border) & brain).sum())
    if tied > TIED * n:
        return Check(
            name,
            WARN,
            f"{tied} voxels share the value at the plan's border: distance chooses among them",
            remedy,
        )
    return Check(name, PASS)


def _repeats(first: Trial, second: Trial) -> Check:
    """Judge whether two runs on one exam gave one map."""
    name = "gives the same map again"
    if first.fault or first.map is None:
        return Check(name, SKIP)
    remedy = "fix every seed, and use deterministic algorithms"
    if second.fault or second.map is None:
        return Check(
            name,
            FAIL,
            f"the second run failed: {second.fault}",
            "leave nothing behind that a second run trips over",
        )
    a, b = (conform(read_image(t.map, np.float64), t.exam.reference).data for t in (first, second) if t.map)
    brain = first.exam.array("brain_mask")
    apart = float(np.abs(a - b)[brain].max() / np.ptp(a[brain]))
    if apart <= EQUAL:
        return Check(name, PASS)
    shared = float((_plan(first, a)[0] & _plan(second, b)[0]).sum() / _plan(first, a)[1])
    seen = f"values differ by up to {100 * apart:.2g} % of their range; the plans share {100 * shared:.1f} %"
    return Check(name, WARN if shared >= NEARLY else FAIL, seen, remedy)


def _verdict(name: str, first: Trial, trial: Trial, remedy: str) -> Check:
    """Judge a run by whether the pipeline could plan on it; not at all where the plain exam failed, too."""
    if first.fault:
        return Check(name, SKIP)
    return Check(name, FAIL if trial.fault else PASS, trial.fault or "", remedy if trial.fault else "")


def _without_optional(first: Trial, trial: Trial, inputs: Sequence[str]) -> Check:
    name = f"does without {', '.join(OPTIONAL)}"
    needed = [word for word in OPTIONAL if word in inputs]
    if trial.fault is None:
        return Check(name, PASS)
    if needed:
        clean = trial.status not in (0, None)
        remedy = "end with a status other than 0 and say which image is missing"
        return Check(
            name,
            PASS if clean else FAIL,
            f"needs {', '.join(needed)}, as its manifest says",
            "" if clean else remedy,
        )
    if first.fault:
        return Check(name, SKIP)
    remedy = "look whether the file is there before you read it; if the model cannot do without, list it under inputs"
    return Check(name, FAIL if inputs else WARN, trial.fault, remedy)


def _without_tumor(trial: Trial) -> Check:
    """Judge whether an exam without a tumour is refused, or planned on, but never answered by rubbish."""
    name = "refuses an exam without tumour, or maps it"
    if trial.fault is None:
        return Check(name, PASS, "maps it")
    if trial.status is not None and 0 < trial.status < 128:
        return Check(name, PASS, f"refuses it: {trial.ended}")
    remedy = "end with a status from 1 to 127 and a sentence that says why, and write no map"
    return Check(name, FAIL, trial.fault, remedy)


def _strays(trials: Sequence[Trial]) -> Check:
    strays = sorted({stray for trial in trials for stray in trial.strays})
    changed = any(not stray.startswith("/mlcube_io1/") for stray in strays)
    remedy = f"write {OUTPUT} and nothing else; for files in between use a temporary folder and remove it"
    more = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
    status = FAIL if changed else WARN if strays else PASS
    return Check("leaves nothing but its map", status, ", ".join(strays[:3]) + more, remedy if strays else "")


def _resources(trials: Sequence[Trial], memory_bytes: float | None) -> Check:
    """Say how long runs took and what they held; the exams are far smaller than a patient's at 1 mm."""
    sizes = [trial.peak_bytes for trial in trials if trial.peak_bytes]
    held = (
        f"{max(sizes) / 2**20:.0f} MB at most"
        if sizes
        else "memory not seen (too short a run, or processes of another user)"
    )
    seen = f"{max(trial.seconds for trial in trials):.1f} s at most, {held}, for exams of some 50,000 voxels"
    if sizes and memory_bytes and max(sizes) > memory_bytes:
        return Check(
            "time and memory",
            FAIL,
            seen,
            "state more memory: this exam alone needs more than the manifest says",
        )
    return Check("time and memory", PASS, seen)


def as_json(target: str, checks: Sequence[Check]) -> Mapping[str, Any]:
    """Return the result as JSON values."""
    lines = [
        {
            "check": c.name,
            "status": c.status,
            "seen": c.seen,
            "remedy": c.remedy if c.status in (WARN, FAIL) else "",
        }
        for c in checks
    ]
    return {"target": target, "passed": passed(checks), "checks": lines}


def passed(checks: Sequence[Check]) -> bool:
    """Tell whether no check failed."""
    return all(check.status != FAIL for check in checks)
