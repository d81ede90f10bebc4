"""`python -m components.model_server.seldon`: serve one release. Every option may come from the environment, as CRISPLINE_<OPTION>."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from components.contracts.durations import parse_duration
from components.contracts.errors import CrisplineError
from components.contracts.serving import CONTRACT_FILE, ServingContract
from components.deployment.bundle import fetch_bundle, open_bundle
from components.model_server.seldon.server import Server, ServerOptions

UNLIMITED = "unlimited"


def read_skew(text: str, release: Path) -> timedelta | None:
    """`15m` and the like, `unlimited` for None, or empty for what the contract in the release's folder says."""
    if not text:
        contract = ServingContract.model_validate_json((release / CONTRACT_FILE).read_text())
        return timedelta(seconds=contract.maximum_moment_skew_seconds)
    return None if text == UNLIMITED else parse_duration(text)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="components.model_server.seldon", description="Serve a release with Seldon's protocol.")

    def option(name: str, default: str, text: str) -> None:
        variable = "CRISPLINE_" + name.upper().replace("-", "_")
        parser.add_argument(f"--{name}", default=os.environ.get(variable, default), help=f"{text} [{variable}; default: {default or 'none'}]")

    option("release-folder", "", "a fetched release")
    option("bundles-uri", "", "bundle store to fetch --release from")
    option("release", "", "id of the release to fetch")
    option("cache-folder", "", "where fetched releases are kept (default: a temporary folder)")
    option("host", "127.0.0.1", "address to bind")
    option("port", "9000", "port to bind")
    option("threads", "4", "requests answered at the same time")
    option("feature-server-url", "", "Feast's feature server; without it, requests by key meet the declared fallback")
    option("moment-skew", "", f"furthest that a prediction moment may lie from the clock, or `{UNLIMITED}`; without it, the release's contract decides")
    option("instance", "", "name of this replica in the numbered answers; must be new at each start (default: made up)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = parse(arguments)
    try:
        folder = release_folder(options)
        open_bundle(folder)  # before anything is bound: a changed release must not even start
        server = Server(
            ServerOptions(
                folder,
                options.host,
                int(options.port),
                max(2, int(options.threads)),
                options.feature_server_url,
                read_skew(options.moment_skew, folder),
                options.instance,
            )
        )
    except CrisplineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    server.run()
    return 0


def release_folder(options: argparse.Namespace) -> Path:
    """The folder to serve, fetched first where a store and an id are given. Raises CrisplineError."""
    if options.release_folder:
        return Path(options.release_folder)
    if not (options.bundles_uri and options.release):
        raise CrisplineError("nothing to serve; give --release-folder, or --bundles-uri with --release")
    cache = Path(options.cache_folder or tempfile.mkdtemp(prefix="crispline-release-"))
    folder: Path = cache / options.release
    fetch_bundle(options.bundles_uri, options.release, folder)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
