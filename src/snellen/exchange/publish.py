"""Models and predictions to the Hugging Face Hub: privately, unless it is said otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from snellen.errors import BadOption, Stopped, UsageError, reason_of, require

__all__ = ["check_address", "publish"]

#: What stays at home.
LEFT = ["checkpoints/*", "*.part", "*.part/*"]


def check_address(name: str) -> None:
    """Refuse what is no ``ORG/NAME``, and a Hub that cannot be reached or does not know the user, before
    anything is done for it.

    Raises:
        BadOption: no such name can be.
        UsageError: no key, or a wrong one.
        Stopped: the Hub cannot be reached.
        MissingExtra: huggingface_hub is not installed.
    """
    require("huggingface_hub", "local", "Pushing to the Hub")
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        if name.count("/") != 1:
            raise HFValidationError("it needs an owner and a name")
        validate_repo_id(name)
    except HFValidationError as error:
        raise BadOption(f"{name!r} is no name on the Hub ({error}); allowed: ORG/NAME.") from error
    with _explaining_errors(name, "Nothing was done yet."):
        HfApi().whoami()


def publish(
    folder: Path,
    name: str,
    *,
    public: bool = False,
    kind: Literal["model", "dataset"] = "model",
    further: str = "",
) -> str:
    """Push a folder to a repository, which is made, privately, where it is not there.

    Args:
        further: what a user can do where it fails, in a sentence.

    The key is that of ``hf auth login`` or ``$HF_TOKEN``.

    Returns:
        the address of the repository.

    Raises:
        UsageError: no key, or one that may not write there; or the repository is there and everybody sees it,
            which was not asked for.
        Stopped: the Hub cannot be reached.
    """
    require("huggingface_hub", "local", "Pushing to the Hub")
    from huggingface_hub import HfApi

    api = HfApi()
    with _explaining_errors(
        name, further or f"It lies in {folder}; push it later with: hf upload {name} {folder}"
    ):
        address = api.create_repo(name, private=not public, exist_ok=True, repo_type=kind)
        if not public and api.repo_info(name, repo_type=kind).private is not True:
            raise UsageError(
                f"{name}: this repository is there already and everybody sees it. If that is "
                "meant, add: --public"
            )
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            repo_type=kind,
            ignore_patterns=LEFT,
            commit_message="From Snellen",
        )
    return str(address)


@contextmanager
def _explaining_errors(name: str, further: str) -> Iterator[None]:
    """What the Hub's client raises, as errors of our own."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except UsageError:
        raise
    except (LocalTokenNotFoundError, HfHubHTTPError) as error:
        raise UsageError(
            f"{name}: the Hub refuses ({reason_of(error)}). Log in with: hf auth login. {further}"
        ) from error
    except Exception as error:  # of whichever transport its client stands on; or it is offline
        raise Stopped(f"{name}: the Hub cannot be reached ({reason_of(error)}). {further}") from error
