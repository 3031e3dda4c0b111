"""Push models and predictions to the Hugging Face Hub; private by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from snellen._util.paths import without_folders
from snellen.errors import BadOption, Stopped, UsageError, reason_of, require

__all__ = ["check_address", "publish"]

#: Files that are pushed without the folders in them.
SETTINGS = ["tuning.yaml"]
#: Files that are never pushed.
LEFT = ["checkpoints/*", "*.part", "*.part/*"]


def check_address(name: str) -> None:
    """Refuse an invalid ``ORG/NAME``, or a Hub that cannot be reached or does not know the user, before any
    work is done.

    Raises:
        BadOption: an invalid name.
        UsageError: no key, or a wrong one.
        Stopped: the Hub cannot be reached.
        MissingExtra: huggingface_hub is not installed.
    """
    require("huggingface_hub", "local", "Pushing to the Hub")
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        if name.count("/") != 1:
            raise HFValidationError("an owner and a name are required")
        validate_repo_id(name)
    except HFValidationError as error:
        raise BadOption(f"{name!r} is not a valid name on the Hub ({error}); allowed: ORG/NAME.") from error
    with _explaining_errors(name, "Nothing was changed."):
        HfApi().whoami()


def publish(
    folder: Path,
    name: str,
    *,
    public: bool = False,
    kind: Literal["model", "dataset"] = "model",
    further: str = "",
) -> str:
    """Push a folder to a repository, which is created as private if it does not exist.

    Args:
        further: what the user can do if it fails, in one sentence.

    The key comes from ``hf auth login`` or ``$HF_TOKEN``.

    Returns:
        the URL of the repository.

    Raises:
        UsageError: no key, or one without write access; or the repository exists and is public, which was not
            requested.
        Stopped: the Hub cannot be reached.
    """
    require("huggingface_hub", "local", "Pushing to the Hub")
    from huggingface_hub import HfApi

    api = HfApi()
    with _explaining_errors(
        name, further or f"It is in {folder}; push it later with: hf upload {name} {folder}"
    ):
        address = api.create_repo(name, private=not public, exist_ok=True, repo_type=kind)
        if not public and api.repo_info(name, repo_type=kind).private is not True:
            raise UsageError(
                f"{name}: this repository already exists and is public. To push to it, add: --public"
            )
        api.create_commit(
            name, _operations(folder), repo_type=kind, commit_message="From Snellen", num_threads=2
        )
    return str(address)


def _operations(folder: Path) -> list[Any]:
    """Return what to commit: all files but some, in a fixed order; settings without folders."""
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    operations = []
    for name in filter_repo_objects(names, ignore_patterns=[*LEFT, *DEFAULT_IGNORE_PATTERNS]):
        content: Any = names[name]
        if name in SETTINGS:
            content = without_folders(content.read_text(encoding="utf-8")).encode()
        operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content))
    return operations


@contextmanager
def _explaining_errors(name: str, further: str) -> Iterator[None]:
    """Turn errors of the Hub's client into our own."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except UsageError:
        raise
    except (LocalTokenNotFoundError, HfHubHTTPError) as error:
        raise UsageError(
            f"{name}: the Hub refused ({reason_of(error)}). Log in with: hf auth login. {further}"
        ) from error
    except Exception as error:  # whichever transport its client uses; or it is offline
        raise Stopped(f"{name}: the Hub cannot be reached ({reason_of(error)}). {further}") from error
