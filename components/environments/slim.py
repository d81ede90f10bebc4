"""Take out of an installed environment what no import reads, then compile what is left: `python slim.py <environment>`.

Runs while an image is built; uses the standard library only. What is taken out was looked up package by package: several import their own
tests at run time (numpy.testing does), so there is no general rule about folders called tests.
"""

from __future__ import annotations

import compileall
import csv
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Patterns below site-packages. Tests and test data of the big packages, headers and sources of compiled modules, data sets of examples, browsers' files.
UNUSED = (
    "dask/**/tests",
    "feast/ui",
    "ibis/**/tests",
    "jupyterlab_plotly",
    "kfp/**/*_test.py",
    "matplotlib/mpl-data/sample_data",
    "matplotlib/tests",
    "nannyml/datasets/data",
    "networkx/**/tests",
    "numba/tests",
    "pandas/tests",
    "plotly/labextension",
    "plotly/package_data/plotly.min.js",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/tests",
    "scipy/**/tests",
    "sklearn/**/tests",
    "sklearn/datasets/data/*.csv*",
    "sklearn/datasets/images/*.jpg",
    "statsmodels/**/tests",
    "statsmodels/datasets/*/*.csv",
)
# Feast asks for SQLAlchemy's plugin for mypy, and with it for mypy. What it says of itself stays, so that it counts as installed.
UNUSED_DISTRIBUTIONS = ("mypy",)
# botocore describes every service of AWS; these are where objects and credentials come from.
USED_SERVICES = ("s3", "signin", "sso", "sso-oidc", "sts")
# Thousands of modules that their packages import one by one when somebody asks for them; nobody here does.
RARELY_IMPORTED = re.compile(r"/plotly/(validators|graph_objs/[a-z]+)/|/transformers/models/(?!auto/)[^/]+/")


def main(environment: Path) -> int:
    for packages in environment.glob("lib/python3*/site-packages"):
        for path in list(_unused(packages)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        # A file that some package ships for another Python does not compile; that is no error of the image.
        compileall.compile_dir(packages, quiet=2, workers=0, rx=RARELY_IMPORTED)
    return 0


def _unused(packages: Path) -> Iterator[Path]:
    for pattern in UNUSED:
        yield from packages.glob(pattern)
    for name in UNUSED_DISTRIBUTIONS:
        for record in packages.glob(f"{name}-*.dist-info/RECORD"):
            files = (packages / row[0] for row in csv.reader(record.read_text().splitlines()))
            yield from (file for file in files if file.parent != record.parent and file.is_relative_to(packages) and file.is_file())
    yield from (service for service in packages.glob("botocore/data/*") if service.is_dir() and service.name not in USED_SERVICES)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
