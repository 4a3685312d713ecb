"""A model's weights by their hash, so that a score belongs to a model and not to a path."""

import hashlib
from pathlib import Path

WEIGHTS = ("*.safetensors", "*.bin")  # the first of these that a folder has


def weights_sha256(model: str) -> str | None:
    """The hash of the weight files' names and contents; None if there are none on this machine.

    `model` is a folder in Hugging Face form, or a hub name whose files are in the local cache.
    """
    folder = _folder(model)
    if folder is None:
        return None
    files = next((found for kind in WEIGHTS if (found := sorted(folder.glob(kind)))), [])
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


def _folder(model: str) -> Path | None:
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, local_files_only=True))
    except (ImportError, OSError, ValueError):
        # Not a name of the hub's, or not in the cache.
        return None
