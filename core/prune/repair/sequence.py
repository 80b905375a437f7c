"""The repair, layer by layer: regressors from the network that is already cut and repaired, targets from the uncut one.

Both residual streams walk through their layers together; only one layer of either is in memory. In a layer there are four fits:

    readers     n ~ B n'             where channels were cut: n the normalised residual, W' = W diag(gain) B diag(1 / gain'), for q, k, v; then gate, up
    heads       W_o z ~ r - x'       z what the cut attention gives, r the uncut stream after attention, x' the cut one before it
    neurons     W_down h ~ r - x'    the same after the MLP; where layers were removed behind, r is the stream behind these

The last one replaces removed layers by the linear map that is nearest to them (ReplaceMe, arXiv 2505.02819), merged into the weights
before. Writers weigh each token by 1 / mean square of r, so that the few tokens with massive activations do not own the fit.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from core.model.dims import Config, dims_of, is_tied, layer_axes
from core.plan.plan import Plan
from core.progress import Progress
from core.prune.repair.fit import Fit, Moments, fit, moments
from core.prune.repair.layer import Layer
from core.prune.repair.local import learn
from core.prune.repair.scales import held_back, looks
from core.prune.surgery import Move, cut_tensor, kept_along, moves, with_residual
from core.score.sites import sites_of
from core.specs import RepairSpec

Read = Callable[[str], Tensor]
"""Tensor of the uncut model by its name."""

Place = tuple[int, slice]
"""A block, and which of its tokens."""

HELD_BACK = 4
"""One block in so many is not fitted on but chosen by."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the repair did at one place."""

    place: str
    """``layers.3 heads``"""
    ridge: float | None
    """What was chosen; None where nothing was fitted."""
    gain: float
    """Share of the squared error on the held-back tokens that is gone; 0 where the weights stayed as they were cut."""
    short: bool
    """Whether there were too few tokens to try."""


class Repair:
    """One repair of one plan."""

    def __init__(self, read: Read, config: Config, plan: Plan, blocks_NT: np.ndarray, spec: RepairSpec, device: torch.device) -> None:
        self.read, self.config, self.plan, self.spec, self.device = read, config, plan, spec, device
        self.blocks_NT = np.array(blocks_NT)
        """All blocks. What scales are chosen by is not fitted on."""
        chosen_by = held_back(len(self.blocks_NT)) if spec.scales else []
        self.ids_NT = torch.from_numpy(np.delete(self.blocks_NT, chosen_by, axis=0)).long()
        self.moves = list(moves(config, plan))
        self.kept_D = torch.from_numpy(plan.channels).to(device)
        self.fitted, self.held_back = parts(*self.ids_NT.shape)
        self.eps = float(config["rms_norm_eps"])
        self.tokens = sum(len(self.ids_NT[place]) for place in self.fitted)
        self.units = len(plan.layers) + (looks(len(self.blocks_NT), spec.passes) if spec.scales else 0)
        """Layers, and blocks gone over to learn scales, that progress counts."""
        self.sites: list[Site] = []
        """Filled as the repair goes on."""

    @torch.no_grad()
    def tensors(self, progress: Progress) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor of the repaired model under its name, in the dtype of the uncut one.

        Raises:
            Stopped: progress asked for it, between layers.
        """
        names, bounds = sites_of(self.config), [*self.plan.layers.tolist(), dims_of(self.config).layers]
        embedding_VD = self.read(f"{names.embedding}.weight")
        self.teacher_NTD = embedding_VD[self.ids_NT].float()
        self.student_NTD = self.teacher_NTD[..., self.plan.channels].clone()
        self._pass_over(0, bounds[0])
        for position, (layer, following) in enumerate(itertools.pairwise(bounds)):
            yield from self._layer(position, layer, following)
            progress.step("repair", position + 1, self.units)
        yield from self._outside(names.final_norm)

    def _pass_over(self, start: int, stop: int) -> None:
        """Move the uncut stream past layers that are removed."""
        for index in range(start, stop):
            layer = self._uncut(index)
            for x_BTD in self._batches(self.teacher_NTD):
                x_BTD.copy_(layer.run(x_BTD.to(self.device)))

    def _uncut(self, index: int) -> Layer:
        pairs = zip(layer_axes(self.config, 0), layer_axes(self.config, index), strict=True)
        return Layer(self.config, self.plan.source, index, {short: self.read(name) for short, name in pairs}, self.device)

    def _layer(self, position: int, index: int, following: int) -> Iterator[tuple[str, Tensor]]:
        """Repair one layer and take both streams past it, and past what is removed behind it."""
        own = [move for move in self.moves if move.position == position]
        shorts, read = list(layer_axes(self.config, 0)), {move.new: self.read(move.old) for move in own}
        student = Layer(self.config, self.plan.dims, index, {s: cut_tensor(read[m.new], m, self.plan) for s, m in zip(shorts, own, strict=True)}, self.device)  # fmt: skip
        self.dtypes = {short: read[move.new].dtype for short, move in zip(shorts, own, strict=True)}
        uncut = self._uncut(index)
        before_NTD = self.student_NTD.clone() if self.spec.method == "thorough" else self.student_NTD
        self._repair_readers(position, 0, uncut, student, own, self.teacher_NTD)
        middle_NTD = torch.empty_like(self.teacher_NTD)
        for x_BTD, mid_BTD in zip(self._batches(self.teacher_NTD), self._batches(middle_NTD), strict=True):
            mid, out = uncut.middle(x_BTD.to(self.device))
            mid_BTD.copy_(mid), x_BTD.copy_(out)
        self._pass_over(index + 1, following)
        self._repair_writer(f"layers.{position} heads", student, student.sites.output_projections[0], student.heads, middle_NTD)
        self._repair_readers(position, 1, uncut, student, own, middle_NTD)
        self._repair_writer(f"layers.{position} neurons", student, student.sites.down_projections[0], student.neurons, self.teacher_NTD)
        if self.spec.method == "thorough":
            self._learn(position, student, before_NTD)
        for short, move in zip(shorts, own, strict=True):
            yield move.new, student.tensor(short).detach().to("cpu", self.dtypes[short]).contiguous()

    def _repair_readers(self, position: int, which: int, uncut: Layer, student: Layer, own: list[Move], target_NTD: Tensor) -> None:
        """Fit what reads one of the layer's normalisations to the uncut model's normalised stream, if that has more channels."""
        if len(self.kept_D) == self.plan.source.hidden:
            return
        norm = f"{student.sites.norms[0][which]}.weight"
        scale = self._scale(target_NTD)
        found = self._fitted(
            f"layers.{position} {('attention', 'mlp')[which]} readers", lambda part: self._reader_rows(part, target_NTD, scale)
        )
        if found.change_OC is None:
            self._set(student, norm, student.tensor(norm) * scale)
            return
        gain_D = uncut.tensor(norm)
        gain_K = steps_of(gain_D[self.kept_D])
        map_DK = self._map(found.change_OC, scale) * gain_D.double()[:, None] / gain_K.double()
        axes = {short: move.axes for short, move in zip(student.names, own, strict=True)}
        for name in (f"{reader}.weight" for reader in student.sites.readers[which]):
            kept = kept_along(axes[name][0], self.plan, position)
            rows_OD = with_residual(uncut.tensor(name), name, axes[name][0], self.plan, position)
            rows_OD = rows_OD if kept is None else rows_OD[kept.to(self.device)]
            self._set(student, name, rows_OD.double() @ map_DK)
        self._set(student, norm, gain_K)

    def _repair_writer(self, place: str, student: Layer, module: str, regressors: Callable[[Tensor], Tensor], target_NTD: Tensor) -> None:
        """Fit what writes into the stream, then let it write."""
        writer = student.module(module)
        z_NTC = torch.empty(*self.ids_NT.shape, writer.in_features)
        for x_BTD, z_BTC in zip(self._batches(self.student_NTD), self._batches(z_NTC), strict=True):
            z_BTC.copy_(regressors(x_BTD.to(self.device)))
        found = self._fitted(place, lambda part: self._writer_rows(part, z_NTC, writer, target_NTD))
        if found.change_OC is not None:
            self._set(student, f"{module}.weight", writer.weight.double() + found.change_OC)
        for x_BTD, z_BTC in zip(self._batches(self.student_NTD), self._batches(z_NTC), strict=True):
            x_BTD.add_(writer(z_BTC.to(self.device)).cpu())

    def _learn(self, position: int, student: Layer, before_NTD: Tensor) -> None:
        """Let the whole layer learn, and take the cut stream past it again."""

        def batch(places: list[Place]) -> tuple[Tensor, Tensor]:
            x_BTD, aim_BTD = (torch.stack([values[place] for place in places]).to(self.device) for values in (before_NTD, self.teacher_NTD))
            return x_BTD, aim_BTD[..., self.kept_D]

        groups = [self.held_back[i : i + self.spec.batch_size] for i in range(0, len(self.held_back), self.spec.batch_size)]
        gain = learn(
            student,
            len(self.fitted),
            lambda chosen: batch([self.fitted[i] for i in chosen]),
            lambda: [batch(group) for group in groups],
            self.spec,
        )
        self.sites.append(Site(place=f"layers.{position} learnt", ridge=None, gain=gain, short=False))
        if gain > 0:
            for name in student.names:
                self._set(student, name, student.tensor(name))
            for x_BTD, y_BTD in zip(self._batches(before_NTD), self._batches(self.student_NTD), strict=True):
                y_BTD.copy_(student.run(x_BTD.to(self.device)))

    def _outside(self, final_norm: str) -> Iterator[tuple[str, Tensor]]:
        """Repair what follows the last layer: an untied head reads like any other; a tied one leaves only the final gains."""
        norm, names = f"{final_norm}.weight", {move.new: move for move in self.moves if move.position is None}
        made = {name: cut_tensor(self.read(move.old), move, self.plan) for name, move in names.items()}
        gain_D, scale = self.read(norm).to(self.device).float(), self._scale(self.teacher_NTD)
        self.dtypes = {name: tensor.dtype for name, tensor in made.items()}
        gain_K = gain_D[self.kept_D] * scale
        if is_tied(self.config):
            gain_K = self._fit_gains(gain_D, gain_K)
        else:
            found = self._fitted("head", lambda part: self._reader_rows(part, self.teacher_NTD, scale))
            if found.change_OC is not None:
                head = next(name for name, move in names.items() if move.axes == (("vocab",), ("hidden",)) and name != f"{sites_of(self.config).embedding}.weight")  # fmt: skip
                gain_K = steps_of(gain_D[self.kept_D])
                map_DK = (self._map(found.change_OC, scale) * gain_D.double()[:, None] / gain_K.double()).float()
                made[head] = (self.read(head).to(self.device).float() @ map_DK).to("cpu", made[head].dtype)
        made[norm] = gain_K.to("cpu", made[norm].dtype)
        yield from made.items()

    def _fit_gains(self, gain_D: Tensor, gain_K: Tensor) -> Tensor:
        """Final gains g with which a tied head comes nearest to the uncut logits: least squares over gains alone.

        With M = E'E of the embedding, whose mean row is taken off since softmax does not see it, and v the error before the head,
        the normal equations are ((sum n' n'^T) o M_KK) dg = sum n' o (M v)_K.
        """
        embedding_VD = self.read(f"{sites_of(self.config).embedding}.weight").to(self.device).float()
        gram_DD = torch.cov(embedding_VD.T, correction=0).float() * len(embedding_VD)

        def sums(part: list[Place]) -> Moments:
            kept, ee, tokens = len(self.kept_D), 0.0, 0
            zz, ez = (torch.zeros(rows, kept, dtype=torch.float64, device=self.device) for rows in (kept, 1))
            for uncut_ND, cut_NK in self._normalised(part, self.teacher_NTD):
                error_ND = uncut_ND * gain_D
                error_ND[:, self.kept_D] -= cut_NK * gain_K
                seen_ND = error_ND @ gram_DD
                zz, ez = zz + (cut_NK.T @ cut_NK).double(), ez + (cut_NK * seen_ND[:, self.kept_D]).double().sum(0, keepdim=True)
                ee, tokens = ee + float((error_ND * seen_ND).double().sum()), tokens + len(cut_NK)
            return Moments(zz_CC=zz * gram_DD[self.kept_D][:, self.kept_D].double(), ez_OC=ez, ee=ee, tokens=tokens)

        found = self._record("final gains", fit(sums(self.fitted), sums(self.held_back), self.spec.ridge))
        return gain_K if found.change_OC is None else gain_K + found.change_OC[0].float()

    def _fitted(self, place: str, rows: Callable[[list[Place]], Iterator[tuple[Tensor, Tensor]]]) -> Fit:
        """Fit, choose and take down what came of it."""
        return self._record(place, fit(moments(rows(self.fitted)), moments(rows(self.held_back)), self.spec.ridge))

    def _record(self, place: str, found: Fit) -> Fit:
        self.sites.append(Site(place=place, ridge=found.ridge, gain=found.gain, short=found.short))
        return found

    def _writer_rows(self, part: list[Place], z_NTC: Tensor, writer: nn.Module, target_NTD: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Regressors and errors of what writes into the stream, weighted."""
        for place in part:
            z_TC, aim_TD = z_NTC[place].to(self.device), target_NTD[place].to(self.device)
            error_TK = aim_TD[:, self.kept_D] - self.student_NTD[place].to(self.device) - writer(z_TC)
            weight_T1 = aim_TD.square().mean(1, keepdim=True).clamp_min(1e-12).rsqrt()
            yield z_TC * weight_T1, error_TK * weight_T1

    def _reader_rows(self, part: list[Place], target_NTD: Tensor, scale: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Regressors and errors of what reads the normalised stream."""
        for uncut_ND, cut_NK in self._normalised(part, target_NTD):
            uncut_ND[:, self.kept_D] -= scale * cut_NK
            yield cut_NK, uncut_ND

    def _normalised(self, part: list[Place], target_NTD: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Both streams, normalised without gains."""
        for place in part:
            yield normalised(target_NTD[place].to(self.device), self.eps), normalised(self.student_NTD[place].to(self.device), self.eps)

    def _scale(self, target_NTD: Tensor) -> float:
        """c = <n_K, n'> / <n', n'>: normalising fewer channels gives larger or smaller numbers, which the gain makes good."""
        if len(self.kept_D) == self.plan.source.hidden:
            return 1.0
        pairs = [
            (float((n[:, self.kept_D] * m).sum()), float(m.square().sum()))
            for n, m in self._normalised(self.fitted + self.held_back, target_NTD)
        ]
        return sum(top for top, _ in pairs) / max(sum(bottom for _, bottom in pairs), 1e-30)

    def _map(self, change_DK: Tensor, scale: float) -> Tensor:
        """B of n ~ B n': the scale where a channel is its own, and the change."""
        map_DK = change_DK.clone()
        map_DK[self.kept_D, torch.arange(len(self.kept_D), device=self.device)] += scale
        return map_DK

    def _set(self, layer: Layer, name: str, tensor: Tensor) -> None:
        """Give a weight its new value, rounded as it will be stored."""
        layer.tensor(name).data = tensor.to(self.dtypes[name]).float()

    def _batches(self, values_NTX: Tensor) -> Iterator[Tensor]:
        """Views of a few blocks."""
        yield from values_NTX.split(self.spec.batch_size)


def steps_of(gain_K: Tensor) -> Tensor:
    """The gains that stay in front of fitted readers: the uncut ones, none nearer to 0 than a hundredth of their mean size.

    Readers could as well take them in and leave ones. But an optimiser's step is as large for every weight, and a gain is what keeps a
    step small where the stream is large: without them the first steps of a distillation undo the repair.
    """
    floor = 0.01 * gain_K.abs().mean().clamp_min(1e-12)
    return torch.where(gain_K < 0, -1.0, 1.0) * gain_K.abs().clamp_min(floor)


def normalised(x_ND: Tensor, eps: float) -> Tensor:
    """x / rms(x)."""
    return x_ND * (x_ND.square().mean(1, keepdim=True) + eps).rsqrt()


def parts(blocks: int, seq_len: int) -> tuple[list[Place], list[Place]]:
    """What is fitted on, and what is held back to choose by; a single block is divided."""
    if blocks == 1:
        bound = seq_len - max(1, seq_len // HELD_BACK)
        return [(0, slice(bound))], [(0, slice(bound, None))]
    held = range(HELD_BACK - 1, blocks, HELD_BACK) or (blocks - 1,)
    return [(i, slice(None)) for i in range(blocks) if i not in held], [(i, slice(None)) for i in held]
