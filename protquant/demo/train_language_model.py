"""Train the demo's ESM-2: masked language modeling on protein sequences (Lin et al. 2023, at a tiny scale).

    python -m protquant.demo.train_language_model DB.fasta.gz --output runs/lm --steps 1500

The demo's weights were trained on the 20,000 UniProt sequences of Debian's `mmseqs2-examples` (CC BY 4.0).
"""

import argparse
import gzip
import json
import logging
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from biotite.sequence.io.fasta import FastaFile
from torch import Tensor

from protquant.demo.checkpoint import load_training_state, save_training_state
from protquant.demo.sizes import LANGUAGE_MODEL
from protquant.models.alphabet import EOS, MASK, PAD, TOKENS, tokenize
from protquant.models.esm2 import ESM2
from protquant.residues import AMINO_ACIDS

__all__ = ["mask_tokens", "train"]

log = logging.getLogger(__name__)
_STANDARD = torch.tensor([TOKENS.index(letter) for letter in AMINO_ACIDS])


def mask_tokens(tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Select 15 % of the residues as BERT does: 80 % become `<mask>`, 10 % a random residue, 10 % are unchanged.

    Returns
    -------
    corrupted : Tensor, dtype=int64, shape=(b, l)
    chosen : Tensor, dtype=bool, shape=(b, l)
        Residues that count in the loss.
    """
    chosen = (torch.rand(tokens.shape, generator=generator) < 0.15) & (tokens > EOS) & (tokens != PAD)
    action = torch.rand(tokens.shape, generator=generator)
    drawn = _STANDARD[torch.randint(len(_STANDARD), tokens.shape, generator=generator)]
    corrupted = torch.where(chosen & (action < 0.8), MASK, tokens)
    return torch.where(chosen & (action >= 0.9), drawn, corrupted), chosen


def read_sequences(path: Path, shortest: int = 40) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return [sequence for sequence in FastaFile.read(file).values() if len(sequence) >= shortest]


def train(
    sequences: list[str],
    output: Path,
    steps: int = 1500,
    batch: int = 64,
    crop: int = 126,
    peak_rate: float = 2e-3,
    seed: int = 0,
    save_every: int = 100,
) -> ESM2:
    """Train from scratch, or resume from `output/state.pt`; the log is `output/log.jsonl`.

    Training uses random crops, AdamW, a warm-up over 5 % of the steps, linear decay to zero, and bfloat16 autocast.
    """
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = ESM2(LANGUAGE_MODEL)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.02 if "embedding" in name else parameter.shape[1] ** -0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, steps // 20)
    start = load_training_state(output, model, [optimizer])
    began = time.monotonic()
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * min((step + 1) / warmup, (steps - step) / (steps - warmup))
        draw = random.Random(seed * 1_000_003 + step)
        generator = torch.Generator().manual_seed(draw.getrandbits(40))
        crops = []
        for sequence in draw.choices(sequences, k=batch):
            first = draw.randrange(max(1, len(sequence) - crop + 1))
            crops.append(sequence[first : first + crop])
        tokens = tokenize(crops)
        corrupted, chosen = mask_tokens(tokens, generator)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model(corrupted).last_hidden[chosen]
            logits = model.lm_head(hidden, model.embedding.weight)
        loss = F.cross_entropy(logits.float(), tokens[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 20 == 0:
            row = {"step": step + 1, "loss": round(loss.item(), 4), "perplexity": round(math.exp(loss.item()), 3)}
            row["accuracy"] = round((logits.argmax(-1) == tokens[chosen]).float().mean().item(), 4)
            row["seconds"] = round(time.monotonic() - began, 1)
            log.info("%s", row)
            with (output / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save_training_state(output, step + 1, model, [optimizer])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", type=Path, help="FASTA of protein sequences, plain or .gz")
    parser.add_argument("--output", type=Path, required=True, help="folder of checkpoint and log; resumed if it exists")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(read_sequences(arguments.sequences), arguments.output, arguments.steps, seed=arguments.seed)


if __name__ == "__main__":
    main()
