"""A checkpoint of Transformers and a text, as commands are given them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecompile.errors import ModelError, OptionError

if TYPE_CHECKING:
    from torch import Tensor


def load_checkpoint(folder: str) -> tuple[Any, Any]:
    """The model, of the class that its checkpoint names, and its tokenizer, if there is one.

    Raises:
        ModelError: Transformers is not installed, or the folder holds no checkpoint.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModelError(
            "checkpoints are read with Transformers, which is not installed: "
            "pip install 'transformers>=5'"
        ) from error
    if not (Path(folder) / "config.json").is_file():
        raise ModelError(f"{folder} is no folder of a checkpoint: it has no config.json")
    (name, *_) = transformers.AutoConfig.from_pretrained(folder).architectures or ["AutoModel"]
    model = getattr(transformers, name, transformers.AutoModel).from_pretrained(folder)
    tokens = any(Path(folder).glob("tokenizer*"))
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder) if tokens else None


def batches_of(path: Path, tokenizer: Any, count: int, length: int, option: str) -> list[Tensor]:
    """Parts of a text, `[1, length]` ids each.

    Raises:
        OptionError: of the option that names it: it cannot be read, or is too short.
    """
    if tokenizer is None:
        raise OptionError(option, f"the checkpoint has no tokenizer for --{option}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(option, f"{path} cannot be read: {error}") from error
    ids = tokenizer(text, return_tensors="pt").input_ids
    if ids.shape[1] < length:
        raise OptionError(option, f"{path} has {ids.shape[1]} tokens, fewer than --length {length}")
    parts: list[Tensor] = [part for part in ids.split(length, 1) if part.shape[1] == length]
    return parts[:count]
