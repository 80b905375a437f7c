"""Finalists as models: each is cut, and repaired if that is asked for, in a folder that stays as long as the search works on it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.evaluate.preview import Previewer
from core.evaluate.store import tokens_hash
from core.files import content_hash
from core.model.device import pick
from core.plan.plan import Plan
from core.prune.export import prune_checkpoint
from core.prune.repair.repair import repair_checkpoint
from core.specs import RepairSpec


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where the finalists of one search lie, and how they are made."""

    place: Path
    blocks_NT: np.ndarray
    """What a repair fits on; none of the blocks by which candidates are compared."""
    spec: RepairSpec

    def cut(self, number: int, plan: Plan, previewer: Previewer) -> Path:
        """The folder of candidate ``number`` before any retraining; made, where ``previewer`` computes, if it is not there.

        Raises:
            UserError: the disk is too small, or the family cannot be repaired.
            Stopped: the previewer's progress asked for it; nothing is left of this one.
        """
        folder = self.place / f"{number}-0"
        if folder.exists():
            return folder
        if self.spec.method == "none":
            prune_checkpoint(previewer.folder, plan, folder, {}, previewer.progress)
        else:
            device = pick(previewer.device)
            repair_checkpoint(previewer.folder, plan, self.blocks_NT, self.spec, folder, {}, previewer.progress, device)
        return folder

    def identity(self, plan: Plan) -> str:
        """A name made of all that makes the cut model, given the uncut one."""
        made: dict[str, Any] = {"plan": plan.identity}
        if self.spec.method != "none":
            made |= {"repair": self.spec.to_dict(), "fitted": tokens_hash(self.blocks_NT)}
        return content_hash(made)

    def clear(self) -> None:
        """Delete them all."""
        shutil.rmtree(self.place, ignore_errors=True)
