"""Train the demo's ESMFold to memorize the 50 reference chains, with a frozen language model.

    python -m protquant.demo.train_folding --language-model runs/lm --output runs/fold

The result is for trying and measuring quantization, not for science. Updates of the pair (triangles, transition) take
most of the time of a step. Training therefore starts without them, on whole chains, and enables them in a growing
fraction of steps (stochastic depth, Huang et al. 2016).
"""

import argparse
import json
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from protquant.demo.checkpoint import load_training_state, save_training_state
from protquant.demo.losses import confidence_loss, distogram_loss, lddt_ca, pose_loss, structure_loss
from protquant.demo.sizes import FOLDING_MODEL
from protquant.demo.targets import Target, TargetBatch, collate, make_target
from protquant.models.esmfold import ESMFold
from protquant.scores import tm_score
from protquant.structures import Reference, load_references

__all__ = ["STAGES", "Stage", "evaluate", "initialize", "train"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """Consecutive steps with the same settings.

    Attributes
    ----------
    updates : float
        Probability that a step runs the triangle updates and the pair transition.
    recycles : float
        Probability that a step first runs the trunk once without gradient.
    structure, pose : float
        Weights of FAPE and of the pose loss.
    clamp : float
        Clamp of FAPE in angstrom. While all frames are at the origin, a clamp of 10 leaves no gradient.
    """

    steps: int
    batch: int
    updates: float
    recycles: float
    structure: float
    pose: float
    clamp: float


STAGES = (
    Stage(steps=600, batch=4, updates=0.0, recycles=0.0, structure=0.1, pose=1.0, clamp=30.0),
    Stage(steps=900, batch=4, updates=0.0, recycles=0.0, structure=0.5, pose=0.5, clamp=20.0),
    Stage(steps=200, batch=2, updates=0.5, recycles=0.3, structure=1.0, pose=0.2, clamp=10.0),
    Stage(steps=160, batch=2, updates=1.0, recycles=0.5, structure=1.0, pose=0.1, clamp=10.0),
)


def initialize(model: ESMFold) -> None:
    """Set LeCun-normal weights, open gates, and zero residual branches of the pair (Jumper et al. 2021, 1.11.4).

    The branches of the single do not start at zero: biases by relative position let each head of the first blocks
    attend to other neighbors, so that residues of equal type differ by context from the first step on.
    """
    for name, module in model.named_modules():
        if name.startswith("lm."):
            continue
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=_GAINS.get(_ending(name), 1.0) * module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith(("_gate", "gate_proj")):
                nn.init.zeros_(module.weight)
                nn.init.ones_(module.bias)
            updates_pair = name.startswith("trunk.blocks") and any(
                word in name for word in ("tri_", "pair_tr", "to_pair")
            )
            if updates_pair and name.endswith(("out_proj", "down_proj")):
                nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0 if "relative_position" in name else 0.1)


# Gain on the LeCun-normal standard deviation, by the last two parts of a module's name.
_GAINS = {
    "pair_to_bias.proj": 2.0,
    "single_attn.out_proj": 0.7,
    "single_transition.down_proj": 0.7,
    "ipa.out_proj": 0.3,
    "0.linear_3": 0.3,
    "structure_module.backbone_update": 0.0,
    "plddt_head.linear_3": 0.1,
}


def _ending(name: str) -> str:
    return ".".join(name.rsplit(".", 2)[-2:])


_PAIR_UPDATES = ("tri_mul_out", "tri_mul_in", "tri_attn_start", "tri_attn_end", "pair_transition")


@contextmanager
def without_pair_updates(model: ESMFold) -> Iterator[None]:
    """Disable the triangle updates and the pair transition of all blocks inside a `with` block."""
    skipped = [block.get_submodule(name) for block in model.trunk.blocks for name in _PAIR_UPDATES]
    for module in skipped:
        module.forward = lambda *_: 0.0
    try:
        yield
    finally:
        for module in skipped:
            del module.forward  # of the instance, so that the method of the class is used again


@torch.no_grad()
def evaluate(
    model: ESMFold, targets: Sequence[Target], hidden: Sequence[Tensor], num_recycles: int
) -> dict[str, list[float]]:
    """Return TM-score, lDDT (0-1) and mean pLDDT (0-100) of each target."""
    scores: dict[str, list[float]] = {"tm": [], "lddt": [], "plddt": []}
    for target, states in zip(targets, hidden, strict=True):
        batch = collate([target])
        output = model(batch.input, num_recycles=num_recycles, hidden=states[None])
        ca = output.positions14[:, :, 1]
        scores["tm"].append(tm_score(ca[0].double().numpy(), batch.ca[0].double().numpy()).score)
        scores["lddt"].append(lddt_ca(ca, batch.ca, batch.mask)[0].mean().item())
        scores["plddt"].append(output.plddt[0, :, 1].mean().item())
    return scores


def make_optimizers(model: ESMFold, peak_rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon (Jordan et al. 2024) for matrices and AdamW for embeddings, heads, gains and biases."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [
        parameter
        for name, parameter in named
        if parameter.ndim == 2 and not any(word in name for word in ("embedding", "head", "recycle"))
    ]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for _, parameter in named if id(parameter) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=peak_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak_rate / 4, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def rate_factor(step: int, total: int) -> float:
    """Return the factor of the learning rate: warm-up over 100 steps, then cosine decay to 1/50."""
    return min(1.0, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, step / total))))


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _losses(
    model: ESMFold, batch: TargetBatch, states: Tensor, stage: Stage, draw: random.Random
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of one step, and its parts by name."""
    num_recycles = int(draw.random() < stage.recycles)
    with nullcontext() if draw.random() < stage.updates else without_pair_updates(model):
        prediction = model(batch.input, num_recycles=num_recycles, hidden=states)
    # One step in ten is not clamped, so that distant parts of a chain also contribute to the gradient.
    structure = structure_loss(prediction, batch, 1000.0 if draw.random() < 0.1 else stage.clamp)
    pose = pose_loss(prediction, batch)
    distogram = distogram_loss(prediction, batch)
    confidence = confidence_loss(prediction, batch)
    residue = F.cross_entropy(prediction.lm_logits[batch.mask], batch.input.aatype[batch.mask] + 1)
    loss = stage.structure * structure + stage.pose * pose + 0.1 * distogram + 0.02 * confidence + 0.01 * residue
    return loss, {"structure": structure, "pose": pose, "distogram": distogram, "confidence": confidence}


def train(
    lm_state: dict[str, Tensor],
    output: Path,
    references: Sequence[Reference] | None = None,
    stages: Sequence[Stage] = STAGES,
    peak_rate: float = 5e-3,
    seed: int = 0,
    evaluate_every: int = 250,
) -> ESMFold:
    """Train from scratch, or resume from `output/state.pt`; the log is `output/log.jsonl`.

    Parameters
    ----------
    lm_state : dict
        State dict of the trained language model, which stays frozen.
    references : sequence of Reference, optional
        Chains to memorize; by default the 50 chains.
    """
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = ESMFold(FOLDING_MODEL)
    initialize(model)
    model.lm.load_state_dict(lm_state)
    model.lm.requires_grad_(False)
    chains = load_references() if references is None else references
    targets = sorted((make_target(chain) for chain in chains), key=lambda target: len(target.aatype))
    with torch.no_grad():
        inputs = [collate([target]).input for target in targets]
        hidden = [model.language_model_hidden(x.aatype, x.mask)[0] for x in inputs]

    total = sum(stage.steps for stage in stages)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizers = make_optimizers(model, peak_rate)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    start = load_training_state(output, model, optimizers)
    plan = [stage for stage in stages for _ in range(stage.steps)]
    began = time.monotonic()
    model.train()
    running: dict[str, float] = {}
    for step in range(start, total):
        stage = plan[step]
        draw = random.Random(seed * 1_000_003 + step)
        torch.manual_seed(draw.getrandbits(40))
        # Choose targets of similar length to reduce padding.
        first = draw.randrange(-stage.batch + 1, len(targets))
        chosen = range(max(0, first), min(len(targets), first + stage.batch))
        batch = collate([targets[i] for i in chosen])
        states = pad_sequence([hidden[i] for i in chosen], batch_first=True)
        loss, values = _losses(model, batch, states, stage, draw)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            for group, rate in zip(optimizer.param_groups, peak, strict=True):
                group["lr"] = rate * rate_factor(step, total)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        values["norm"] = norm
        for name, value in values.items():
            running[name] = 0.97 * running.get(name, value.item()) + 0.03 * value.item()
        to_evaluate = (step + 1) % evaluate_every == 0 or step + 1 == total
        if to_evaluate or (step + 1) % 50 == 0:
            row: dict[str, object] = {"step": step + 1, **{name: round(value, 4) for name, value in running.items()}}
            row["seconds"] = round(time.monotonic() - began, 1)
            if to_evaluate:
                save_training_state(output, step + 1, model, optimizers)
                model.eval()
                if stage.updates:
                    scores = evaluate(model, targets, hidden, num_recycles=1)
                else:
                    with without_pair_updates(model):
                        scores = evaluate(model, targets, hidden, num_recycles=0)
                model.train()
                row |= {name: _mean(value) for name, value in scores.items()}
                row["worst_tm"] = round(min(scores["tm"]), 4)
            log.info("%s", row)
            with (output / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language-model", type=Path, required=True, help="output folder of train_language_model")
    parser.add_argument("--output", type=Path, required=True, help="folder of checkpoint and log; resumed if it exists")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # Fast bfloat16 products if the CPU has them. The setting affects the whole process, so it is not in train().
    torch.set_float32_matmul_precision("medium")
    state = torch.load(arguments.language_model / "state.pt", weights_only=True)
    train(state["model"], arguments.output, seed=arguments.seed)


if __name__ == "__main__":
    main()
