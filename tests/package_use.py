"""Does a component really use a package? Run a small piece of it twice in fresh processes: as it is, and with the package not to be found."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_FOUND = 42
_PROLOGUE = """
import importlib.abc, os, sys, warnings
warnings.simplefilter("ignore")
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", FEAST_USAGE="False")
hidden = set(sys.argv[1].split(","))

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"hidden by the test: {name}", name=name)

sys.meta_path.insert(0, Hidden())

def hidden_in(error):
    while error is not None:
        if isinstance(error, ImportError) and "hidden by the test" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False

def piece():
"""
_EPILOGUE = """
try:
    piece()
except BaseException as error:
    if not hidden_in(error):
        raise
    print(error)
    sys.exit(42)
"""

# A release's file, read from an object store over HTTP as S3 speaks it.
OBJECT_STORE = """
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from components.contracts.storage import BlobStore, sha256

class Store(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.send_header("ETag", '"a"')
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(b"model")

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Store)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ.update(AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
assert BlobStore("s3://bucket/bundles").get(sha256(b"model")) == b"model"
"""


@dataclass(frozen=True)
class Use:
    """`package`: the distribution as pyproject.toml names it; `modules`: what it installs; `piece`: code of ours that does real work with it."""

    package: str
    modules: str
    piece: str

    def __str__(self) -> str:
        return self.package


def outcomes(use: Use, folder: Path) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
    """The finished processes (with the package, without it); both run at once, each in a folder of its own."""
    code = _PROLOGUE + textwrap.indent(textwrap.dedent(use.piece), "    ") + _EPILOGUE
    started = []
    for name, hidden in (("with", ""), ("without", use.modules)):
        (folder / name).mkdir()
        command = [sys.executable, "-c", code, hidden]
        started.append(subprocess.Popen(command, cwd=folder / name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    finished = [subprocess.CompletedProcess(process.args, process.wait(), output) for process in started for output in [process.communicate(timeout=180)[0]]]
    return finished[0], finished[1]


def assert_used(use: Use, folder: Path) -> None:
    with_it, without = outcomes(use, folder)
    assert with_it.returncode == 0, with_it.stdout
    assert without.returncode == NOT_FOUND, f"{use.package} can be taken out and nothing fails (exit code {without.returncode})\n{without.stdout}"


def declared(environment: str) -> set[str]:
    """The distributions that an environment declares for what it runs, without versions and extras, apart from this project itself."""
    document = tomllib.loads((ROOT / "components" / "environments" / environment / "pyproject.toml").read_text())
    return {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0] for line in document["project"]["dependencies"]} - {"crispline"}
