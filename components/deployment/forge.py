"""Pull requests at a forge: GitHub's REST API, which GitHub Enterprise and Gitea-compatible servers share in these two calls.

The token is read from GITHUB_TOKEN and needs the permission to write pull requests of the one repository. Where no forge is configured, the
branch with the proposal is all there is, and a person opens the request.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from components.contracts.errors import CrisplineError

TOKEN_VARIABLE = "GITHUB_TOKEN"  # noqa: S105  the name of a variable
API_VERSION = "2022-11-28"
_SECONDS = 30.0


@dataclass(frozen=True)
class PullRequest:
    """A proposal: `branch` of the repository at `remote` is to be merged into `base`."""

    remote: str
    branch: str
    base: str
    title: str
    body: str


def repository_name(remote: str) -> str:
    """`owner/name` of an address such as https://github.com/owner/name.git or git@github.com:owner/name.git. Raises CrisplineError."""
    path = urlsplit(remote).path if "://" in remote else remote.partition(":")[2]
    parts = [part for part in path.removesuffix("/").removesuffix(".git").split("/") if part]
    if len(parts) < 2:
        raise CrisplineError(f"the GitOps repository {remote} has no owner and name in its address, so its forge cannot be asked")
    return "/".join(parts[-2:])


def open_pull_request(api: str, request: PullRequest) -> str:
    """Open the pull request, or find the open one of this branch; return the address of its page.

    Raises CrisplineError when there is no token or the forge refuses, with what it said. The branch stays, so asking again is safe.
    """
    name = repository_name(request.remote)
    owner = name.partition("/")[0]
    query = f"state=open&head={quote(f'{owner}:{request.branch}', safe='')}&base={quote(request.base, safe='')}"
    found = call_forge(api, "GET", f"/repos/{name}/pulls?{query}")
    if isinstance(found, list) and found:
        return str(found[0]["html_url"])
    body = {"title": request.title, "head": request.branch, "base": request.base, "body": request.body}
    return str(call_forge(api, "POST", f"/repos/{name}/pulls", body)["html_url"])


def call_forge(api: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One call; returns the answer's JSON. Raises CrisplineError with the forge's own words and what to do."""
    import httpx

    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise CrisplineError(f"{TOKEN_VARIABLE} is not set; the forge {api} needs a token that may write pull requests")
    headers = {"Accept": "application/vnd.github+json", "Authorization": f"Bearer {token}", "X-GitHub-Api-Version": API_VERSION}
    try:
        answer = httpx.request(method, f"{api.rstrip('/')}{path}", headers=headers, json=body, timeout=_SECONDS, follow_redirects=False)
    except httpx.HTTPError as error:
        raise CrisplineError(f"the forge {api} does not answer ({error}); the branch is pushed, so try again") from error
    if answer.is_success:
        return answer.json()
    raise CrisplineError(f"the forge {api} refused {method} {path} with {answer.status_code}: {_said(answer)}\n    remedy: {_remedy(answer.status_code)}")


def _said(answer: Any) -> str:
    try:
        document = answer.json()
        details = [str(each.get("message") or each) if isinstance(each, dict) else str(each) for each in document.get("errors", [])]
        return "; ".join([str(document.get("message", "no message")), *details])
    except (ValueError, AttributeError):
        return str(answer.text[:200]) or "no message"


def _remedy(status: int) -> str:
    if status == 401:
        return f"the token in {TOKEN_VARIABLE} is not valid (any more)"
    if status in (403, 404):
        return f"let the token in {TOKEN_VARIABLE} read this repository and write its pull requests"
    return "see the message; the branch is pushed, so the request can be opened by hand"
