"""`python -m components.model_server.fetch_release`: the pod's init container. Fetches a release and lays it out as a folder, every hash verified.

A store that does not answer is tried again until the time is up; content that does not match its hash, or is another use case's, ends it at
once, and nothing is left in the destination.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from components.contracts.artifacts import ReleaseManifest
from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.platform import Platform
from components.deployment.bundle import fetch_bundle, read_manifest

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0


class StoreUnreachable(CrisplineError):
    """The bundle store did not answer until the time was up."""

    exit_code = 6


def fetch_release(
    bundles_uri: str,
    release: str,
    destination: Path,
    usecase: str,
    timeout_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ReleaseManifest:
    """Fetch `release` into `destination`, which then holds the whole release or does not exist.

    Raises IntegrityError for what does not match its hash, is absent from the store, or belongs to another use case than `usecase`;
    StoreUnreachable when the store did not answer within `timeout_seconds`.
    """
    until, pause = clock() + timeout_seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            found = read_manifest(bundles_uri, release)
            if found.usecase != usecase:
                raise IntegrityError(f"release {release[:12]} is of the use case {found.usecase!r}, not {usecase!r}; promote one of its own")
            return fetch_bundle(bundles_uri, release, destination)
        except CrisplineError:
            raise
        except Exception as error:  # whatever the store's client raises: no connection, time-out, refused credentials
            if clock() + pause > until:
                raise StoreUnreachable(
                    f"the bundle store {bundles_uri} cannot be read: {type(error).__name__}: {error}\n"
                    "    remedy: check bundles_uri in platform.json, the endpoint, the credentials' Secret, and the network policy"
                ) from error
            print(f"the bundle store does not answer yet ({type(error).__name__}: {error}); tried again in {pause:g} s", file=sys.stderr, flush=True)
            sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m components.model_server.fetch_release", description="Fetch a release and verify it.")
    parser.add_argument("--release", required=True, help="id of the release, 64 hexadecimal digits")
    parser.add_argument("--usecase", required=True, help="the use case that it must be of")
    parser.add_argument("--destination", type=Path, required=True, help="folder to make; its parent exists and can be written")
    parser.add_argument("--bundles-uri", default="", help="the bundle store (default: that of the platform file)")
    parser.add_argument("--timeout-seconds", type=float, default=300.0, help="how long a store that does not answer is tried (default %(default)s)")
    given = parser.parse_args(arguments)
    try:
        bundles_uri = given.bundles_uri or Platform.load().bundles_uri
        started = time.monotonic()
        manifest = fetch_release(bundles_uri, given.release, given.destination, given.usecase, given.timeout_seconds)
    except CrisplineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"release {given.release[:12]}, model {manifest.model_version}: {len(manifest.files)} files verified in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
