"""The structure module: frames and torsions from the single and pair (Algorithms 20-24 of Jumper et al. 2021).

Frames, torsion angles and ideal geometry come from transformers' `openfold_utils`.
Letters in shapes: b batch, i j l residues, s channels of the single, c channels of the pair, h heads, p points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.models.esm.openfold_utils import (
    Rigid,
    Rotation,
    frames_and_literature_positions_to_atom14_pos,
    residue_constants,
    torsion_angles_to_frames,
)

from protquant.models.configs import StructureModuleConfig
from protquant.sites import Tap, tap_logits
from protquant.topology import Link

__all__ = ["Structure", "StructureModule", "StructureModuleConfig"]

_MASKED = -1e5
_EPSILON = 1e-8


@dataclass
class Structure:
    """Output of the structure module; coordinates in angstrom.

    Attributes
    ----------
    positions : Tensor, shape=(b, l, 14, 3)
        Atoms in the order of `residue_constants.restype_name_to_atom14_names`; missing atoms are zero.
    frames : list of Rigid, one per layer, shape=(b, l)
        Backbone frames.
    sidechain_frames : Rigid, shape=(b, l, 8)
        Frames of the backbone, omega, phi, psi and chi1-4, from the last layer.
    angles, unnormalized_angles : Tensor, shape=(b, l, 7, 2)
        Sine and cosine of the torsions, from the last layer.
    single : Tensor, shape=(b, l, s)
        The single representation after the last layer, which is the input of the pLDDT head.
    """

    positions: Float[Tensor, "b l 14 3"]
    frames: list[Rigid]
    sidechain_frames: Rigid
    angles: Float[Tensor, "b l 7 2"]
    unnormalized_angles: Float[Tensor, "b l 7 2"]
    single: Float[Tensor, "b l s"]


def _summed_squared_distance(q: Float[Tensor, "b i h p 3"], k: Float[Tensor, "b j h p 3"]) -> Float[Tensor, "b h i j"]:
    """Return the sum over a head's points of |q - k|^2, expanded to avoid an (i, j, p) tensor."""
    q, k = q.flatten(-2).transpose(1, 2), k.flatten(-2).transpose(1, 2)  # (b, h, residues, 3 p)
    return q.square().sum(-1)[..., :, None] + k.square().sum(-1)[..., None, :] - 2 * q @ k.transpose(-1, -2)


class InvariantPointAttention(nn.Module):
    """Attention over residues by features, pair bias and distances of points fixed to the frames (Algorithm 22)."""

    def __init__(self, config: StructureModuleConfig) -> None:
        super().__init__()
        self.config = config
        heads, dim = config.num_heads, config.ipa_dim
        self.q_proj = nn.Linear(config.single_dim, heads * dim)
        self.kv_proj = nn.Linear(config.single_dim, 2 * heads * dim)
        self.q_point_proj = nn.Linear(config.single_dim, heads * config.num_qk_points * 3)
        self.kv_point_proj = nn.Linear(config.single_dim, heads * (config.num_qk_points + config.num_v_points) * 3)
        self.bias_proj = nn.Linear(config.pair_dim, heads)
        self.head_weights = nn.Parameter(torch.full((heads,), 0.541324854612918))  # softplus of it is 1
        self.out_proj = nn.Linear(heads * (config.pair_dim + dim + config.num_v_points * 4), config.single_dim)
        self.q, self.k, self.v = Tap("matmul_operand"), Tap("matmul_operand"), Tap("matmul_operand")
        self.pair_value = Tap("matmul_operand")
        self.logits, self.probs = Tap("softmax_input"), Tap("softmax_output")

    def links(self) -> list[Link]:
        return [
            Link(("q_proj", "kv_proj", "q_point_proj", "kv_point_proj"))
        ]  # no writer, because the norm of the residual sum has other readers

    def _points(self, projected: Float[Tensor, "b l channels"], frames: Rigid) -> Float[Tensor, "b l h p 3"]:
        local = torch.stack(projected.chunk(3, dim=-1), dim=-1)  # x of all points, then y, then z
        return frames[..., None].apply(local).unflatten(-2, (self.config.num_heads, -1))

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"],
        frames: Rigid,
        mask: Bool[Tensor, "b l"],
    ) -> Float[Tensor, "b l s"]:
        config = self.config
        q = self.q_proj(single).unflatten(-1, (config.num_heads, -1)).transpose(1, 2)  # (b, h, l, d)
        k, v = self.kv_proj(single).unflatten(-1, (config.num_heads, -1)).transpose(1, 2).chunk(2, dim=-1)
        q_points = self._points(self.q_point_proj(single), frames)
        kv_points = self._points(self.kv_point_proj(single), frames)
        k_points, v_points = kv_points.split([config.num_qk_points, config.num_v_points], dim=-2)

        logits = (self.q(q) @ self.k(k).transpose(-1, -2)) * math.sqrt(1 / (3 * config.ipa_dim))
        logits = logits + math.sqrt(1 / 3) * self.bias_proj(pair).permute(0, 3, 1, 2)
        weight = F.softplus(self.head_weights) * math.sqrt(1 / (3 * config.num_qk_points * 9 / 2))
        logits = logits - 0.5 * weight[:, None, None] * _summed_squared_distance(q_points, k_points)
        logits = tap_logits(self.logits, logits, mask[:, None, None, :])
        valid = mask[:, None, :, None] & mask[:, None, None, :]
        probs = self.probs((logits + torch.where(valid, 0.0, _MASKED)).softmax(dim=-1))  # (b, h, i, j)

        out = (probs @ self.v(v)).transpose(1, 2).flatten(-2)
        out_points = torch.einsum("bhij,bjhpx->bihpx", probs, v_points)
        out_points = frames[..., None, None].invert_apply(out_points)
        norms = (out_points.square().sum(-1) + _EPSILON).sqrt().flatten(-2)
        out_points = out_points.flatten(-3, -2)
        out_pair = (probs.permute(0, 2, 1, 3) @ self.pair_value(pair)).flatten(-2)
        return self.out_proj(torch.cat((out, *out_points.unbind(-1), norms, out_pair), dim=-1))


class TransitionLayer(nn.Module):
    """Residual perceptron of three layers (Algorithm 20, line 9)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2, self.linear_3 = (nn.Linear(dim, dim) for _ in range(3))

    def links(self) -> list[Link]:
        return [Link(("linear_2",), "linear_1"), Link(("linear_3",), "linear_2")]

    def forward(self, x: Float[Tensor, "b l s"]) -> Float[Tensor, "b l s"]:
        return x + self.linear_3(F.relu(self.linear_2(F.relu(self.linear_1(x)))))


class ResidualBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def links(self) -> list[Link]:
        return [Link(("linear_2",), "linear_1")]

    def forward(self, x: Float[Tensor, "b l r"]) -> Float[Tensor, "b l r"]:
        return x + self.linear_2(F.relu(self.linear_1(F.relu(x))))


class AngleResnet(nn.Module):
    """Torsion angles as points on the unit circle (Algorithm 20, lines 11-14)."""

    def __init__(self, config: StructureModuleConfig) -> None:
        super().__init__()
        self.linear_in = nn.Linear(config.single_dim, config.resnet_dim)
        self.linear_initial = nn.Linear(config.single_dim, config.resnet_dim)
        self.layers = nn.ModuleList(ResidualBlock(config.resnet_dim) for _ in range(config.num_resnet_blocks))
        self.linear_out = nn.Linear(config.resnet_dim, 2 * config.num_angles)

    def forward(
        self, single: Float[Tensor, "b l s"], initial: Float[Tensor, "b l s"]
    ) -> tuple[Float[Tensor, "b l 7 2"], Float[Tensor, "b l 7 2"]]:
        x = self.linear_in(F.relu(single)) + self.linear_initial(F.relu(initial))
        for layer in self.layers:
            x = layer(x)
        raw = self.linear_out(F.relu(x)).unflatten(-1, (-1, 2))
        return raw, raw / raw.square().sum(-1, keepdim=True).clamp(min=_EPSILON).sqrt()


class StructureModule(nn.Module):
    """Layers with shared weights that move the residues' frames, which all start at the origin (Algorithm 20)."""

    default_frames: Tensor
    group_index: Tensor
    atom_mask: Tensor
    literature_positions: Tensor

    def __init__(self, config: StructureModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.single_norm = nn.LayerNorm(config.single_dim)
        self.pair_norm = nn.LayerNorm(config.pair_dim)
        self.linear_in = nn.Linear(config.single_dim, config.single_dim)
        self.ipa = InvariantPointAttention(config)
        self.ipa_norm = nn.LayerNorm(config.single_dim)
        self.transitions = nn.ModuleList(
            TransitionLayer(config.single_dim) for _ in range(config.num_transition_layers)
        )
        self.transition_norm = nn.LayerNorm(config.single_dim)
        self.backbone_update = nn.Linear(config.single_dim, 6)
        self.angle_resnet = AngleResnet(config)
        for name, constant in (
            ("default_frames", residue_constants.restype_rigid_group_default_frame),
            ("group_index", residue_constants.restype_atom14_to_rigid_group),
            ("atom_mask", residue_constants.restype_atom14_mask),
            ("literature_positions", residue_constants.restype_atom14_rigid_group_positions),
        ):
            # On the CPU even if parameters are on the meta device, because the state dict does not contain them.
            self.register_buffer(name, torch.tensor(constant, device="cpu"), persistent=False)

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"],
        aatype: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
        project_pair: Callable[[Float[Tensor, "b i j c"]], Float[Tensor, "b i j d"]],
    ) -> Structure:
        """Compute the structure in this module's own type: frames in half precision would lose tenths of an angstrom.

        `project_pair` converts the trunk's pair to this module's channels. It is called here, so that its result is
        freed after it is normalized.
        """
        exact = self.ipa.head_weights.dtype
        single = initial = self.single_norm(single.to(exact))
        pair = self.pair_norm(project_pair(pair).to(exact))
        single = self.linear_in(single)
        rigids = Rigid.identity(single.shape[:-1], single.dtype, single.device, requires_grad=self.training, fmt="quat")
        frames = []
        for _ in range(self.config.num_layers):
            single = self.ipa_norm(single + self.ipa(single, pair, rigids, mask))
            for transition in self.transitions:
                single = transition(single)
            single = self.transition_norm(single)
            rigids = rigids.compose_q_update_vec(self.backbone_update(single))
            frames.append(rigids.scale_translation(self.config.translation_scale))
            rigids = rigids.stop_rot_gradient()
        unnormalized, angles = self.angle_resnet(single, initial)
        backbone = Rigid(Rotation(rot_mats=frames[-1].get_rots().get_rot_mats()), frames[-1].get_trans())
        sidechain = torsion_angles_to_frames(backbone, angles, aatype, self.default_frames)
        positions = frames_and_literature_positions_to_atom14_pos(
            sidechain, aatype, self.default_frames, self.group_index, self.atom_mask, self.literature_positions
        )
        return Structure(positions, frames, sidechain, angles, unnormalized, single)
