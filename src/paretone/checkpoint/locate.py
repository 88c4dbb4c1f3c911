"""From what the user calls a model to a folder on this machine."""

from pathlib import Path

from paretone.errors import UserError, did_you_mean

EMBEDDED = Path(__file__).parents[1] / "embedded"
# not *.safetensors: hub folders also hold copies in other dtypes and adapters for other languages
PATTERNS = ["*.json", "*.txt", "*.model", "*.jinja", "*.py", "model.safetensors", "model-*-of-*.safetensors"]


def embedded_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in EMBEDDED.glob("*/config.json"))


def locate(model: str | Path, revision: str | None = None) -> Path:
    """The folder of ``model``: a local folder, an embedded name, or a hub id, which is fetched if need be.

    ``HF_HUB_OFFLINE=1`` and the other settings of huggingface_hub hold.

    Raises:
        UserError: if there is no such model here or on the hub, or no network for a hub id.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if revision is not None:
            raise UserError(f"--revision {revision} has no effect: {model} is a local folder; leave it out")
        return path
    if path.is_file():
        raise UserError(f"{model} is a file; give the folder that holds it with its config.json")
    name = str(model)
    if name in embedded_models():
        if revision is not None:
            raise UserError(f"--revision {revision} has no effect: {name} is an embedded model; leave it out")
        return EMBEDDED / name
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or path.parent.is_dir():
        raise UserError(
            f"no model {name!r}: there is no such folder, and embedded models are "
            f"{', '.join(embedded_models())}{did_you_mean(name, embedded_models())}"
        )
    return _fetch(name, revision)


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = f"hub model {name!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS))
    except HFValidationError as error:
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    except (LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            status = error.response.status_code
            raise UserError(
                f"{where}: the hub answered {status}; check the id and the revision, or log in if it is gated"
            ) from error
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub can't be reached"
        raise UserError(
            f"{where}: {reason} and it is not in the local cache ({constants.HF_HUB_CACHE}); "
            "fetch it where there is a network, or give a local folder"
        ) from error
