"""Hugging Face model folders: `config.json` and `model.safetensors`, whole or in shards.

Only JSON and safetensors are read: neither can run code. A pickle (`pytorch_model.bin`) is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from roberta_core.atomic import write_json
from roberta_core.errors import BadInput
from roberta_core.model.config import RobertaConfig


def read_config(folder: Path) -> RobertaConfig:
    """Reads `config.json`.

    Raises:
        BadInput: the folder or the file is missing, not JSON, or of another kind of model.
    """
    file = folder / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            f"{folder} is no model folder: it has no config.json.",
            "Give a folder that save_pretrained wrote, such as models/encoder.",
        ) from None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise BadInput(f"{file} is not a JSON object.", "Export the model again.")
    return RobertaConfig.from_hugging_face(values, folder)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Reads all weights of a folder, on the CPU.

    Raises:
        BadInput: no safetensors file, or a damaged one.
    """
    index = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if index.exists():
        files = [
            folder / name for name in sorted(set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values()))
        ]
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        if not file.exists():
            if (folder / "pytorch_model.bin").exists():
                raise BadInput(
                    f"{folder} holds a pickle (pytorch_model.bin), which can run code when it is loaded.",
                    "Convert it to model.safetensors first.",
                )
            raise BadInput(f"{file} is missing.", "Give a whole model folder.")
        try:
            weights |= load_file(file)
        except (SafetensorError, ValueError, OSError) as error:
            raise BadInput(f"{file} is damaged ({error}).", "Fetch or export it again.") from None
    return weights


def write_folder(folder: Path, config: dict, weights: Mapping[str, torch.Tensor]) -> None:
    """Writes `config.json` and `model.safetensors` (float32) into `folder`; equal weights give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    plain = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in sorted(weights.items())}
    temporary = folder / ".model.safetensors.tmp"
    save_file(plain, temporary, metadata={"format": "pt"})
    temporary.replace(folder / "model.safetensors")
