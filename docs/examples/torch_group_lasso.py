"""Check a group Lasso written with PyTorch against the test vectors of minissl.

minissl vectors vectors
python torch_group_lasso.py vectors answers
minissl vectors --check answers
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def group_lasso(w: torch.Tensor, strength: float, tile: tuple[int, int]) -> torch.Tensor:
    """strength * sum of ||w_g||, each group ``ydimen`` rows by ``xdimen`` columns of w."""
    xdimen, ydimen = tile
    matrix = w.reshape(w.shape[0], -1)
    R, C = matrix.shape
    tiles = matrix.reshape(R // ydimen, ydimen, C // xdimen, xdimen)
    squares = tiles.square().sum(dim=(1, 3))
    # the root of 0 has no derivative; a group of zeros gets the gradient 0
    norms = torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)
    return strength * norms.sum()


def main(vectors: Path, answers: Path) -> None:
    tensors = load_file(vectors / "sparsity.safetensors")
    found = {}
    for case in json.loads((vectors / "index.json").read_text())["cases"]:
        name, settings = case["name"], case["settings"]
        if not name.startswith("sparsity/group lasso/"):
            continue
        w = tensors[f"{name}#inputs/w"].requires_grad_()
        penalty = group_lasso(w, settings["strength"], settings["tile"])
        penalty.backward()
        found[f"{name}#outputs/penalty"] = penalty.detach()
        found[f"{name}#outputs/gradient"] = w.grad
    answers.mkdir(parents=True, exist_ok=True)
    save_file(found, answers / "sparsity.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
