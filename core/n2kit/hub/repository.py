"""Names of a hub's repositories, and its errors in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from n2kit.errors import BadInput, Unavailable

OFFLINE = "a network, and HF_HUB_OFFLINE not set; n2kit pack makes a folder that can be copied by hand"


def check_name(repository: str) -> None:
    """Check a repository's name.

    Raises:
        BadInput: it is no name.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as problem:
        raise BadInput(
            f"{repository!r} is no repository: {str(problem).partition(':')[0]}", "ORGANISATION/NAME"
        ) from None
    if "/" not in repository:
        raise BadInput(f"{repository!r} names no owner", "ORGANISATION/NAME")


@contextmanager
def plain_errors(repository: str) -> Iterator[None]:
    """Let a hub's errors say what is wrong and what to do.

    Raises:
        BadInput: there is no such repository or revision for this user. Unavailable: the hub is not reached, or refuses.
    """
    try:
        yield
    except GatedRepoError:
        raise Unavailable(f"{repository} is gated", "ask for access on its page, and hf auth login") from None
    except RevisionNotFoundError:
        raise BadInput(f"{repository} has no such revision", "a branch, a tag or a commit") from None
    except RepositoryNotFoundError:
        raise BadInput(
            f"no repository {repository}, or none that you may see", "check the name, or hf auth login"
        ) from None
    except OfflineModeIsEnabled:
        raise Unavailable("the hub is switched off (HF_HUB_OFFLINE)", OFFLINE) from None
    except HfHubHTTPError as problem:
        status = problem.response.status_code if problem.response is not None else None
        hint = "hf auth login, with a token that may write" if status in (401, 403) else "try again"
        raise Unavailable(f"the hub answers {status}: {str(problem).strip().splitlines()[-1][:200]}", hint) from None
    except LocalEntryNotFoundError as problem:
        raise Unavailable(f"the hub is not reached: {problem.__cause__ or problem}", OFFLINE) from None
    except OSError as problem:
        if isinstance(problem, FileNotFoundError | PermissionError | IsADirectoryError):
            raise
        raise Unavailable(f"the hub is not reached: {problem}", OFFLINE) from None
    except Exception as problem:
        if type(problem).__module__.partition(".")[0].startswith("http"):  # of whichever client the library uses
            raise Unavailable(f"the hub is not reached: {type(problem).__name__}: {problem}", OFFLINE) from None
        raise
