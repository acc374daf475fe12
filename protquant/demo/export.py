"""Export of the trained demo: fit the contact head, store the weights in half precision, and copy the training log.

python -m protquant.demo.export --language-model runs/lm --folding runs/fold --output protquant/demo
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from protquant.checkpoints import save_model
from protquant.demo.sizes import FOLDING_MODEL
from protquant.models import ESM2, ESMFold, tokenize
from protquant.models.esm2 import ContactHead
from protquant.scores import CONTACT_DISTANCE, cb_distances
from protquant.structures import Reference, load_references

__all__ = ["export", "fit_contact_head"]

_MIN_SEPARATION = 6
_PENALTY = 1e-3


def fit_contact_head(model: ESM2, references: Sequence[Reference], steps: int = 60) -> float:
    """Fit the logistic regression from attention maps to contacts (Rao et al. 2021) in place, and return its loss.

    Uses all pairs with a separation of at least 6, and a ridge penalty instead of the lasso of Rao et al.
    """
    features, labels = [], []
    with torch.no_grad():
        for reference in references:
            tokens = tokenize([reference.sequence])
            attentions = model(tokens, return_attentions=True).attentions
            assert attentions is not None
            first, second = torch.triu_indices(len(reference), len(reference), _MIN_SEPARATION)
            features.append(ContactHead.features(tokens, attentions)[0, first, second])
            distances = torch.from_numpy(cb_distances(reference.cb))
            labels.append((distances[first, second] < CONTACT_DISTANCE).float())
    x, y = torch.cat(features), torch.cat(labels)
    scale = x.std(0).clamp(min=1e-6)
    weight, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x / scale @ weight + bias, y) + _PENALTY * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        assert isinstance(model.contact_head, ContactHead)
        regression = model.contact_head.regression
        regression.weight.copy_(weight / scale)
        regression.bias.copy_(bias)
    return closure().item()


def export(language_model: Path, folding: Path, output: Path) -> Path:
    """Write `weights/` and `training_log.jsonl` into `output` from the folders of the two training commands."""
    model = ESMFold(FOLDING_MODEL)
    model.load_state_dict(torch.load(folding / "state.pt", weights_only=True)["model"])
    model.eval()
    loss = fit_contact_head(model.lm, load_references())
    save_model(model, output / "weights", dtype=torch.float16, overwrite=True)
    lines = [{"part": "contact head", "loss": round(loss, 5)}]
    for part, folder in (("language model", language_model), ("folding", folding)):
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        # Copy every tenth row, all rows with scores, and the last row.
        selected = [row for i, row in enumerate(rows) if i % 10 == 9 or "tm" in row or i + 1 == len(rows)]
        lines += [{"part": part, **row} for row in selected]
    (output / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return output / "weights"


def main() -> None:
    """Run the export command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("language-model", "folding", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    print(export(arguments.language_model, arguments.folding, arguments.output))


if __name__ == "__main__":
    main()
