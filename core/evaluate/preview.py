"""Measuring plans without cutting: each is applied as masks on the one loaded teacher, and what was found is stored.

The cost of a plan is one forward pass over the text. The teacher's side is computed once a text and kept for good, and a plan
that was measured before costs no forward pass at all; the model is loaded only when one is needed.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.evaluate import store
from core.evaluate.measure import PHASE, Reference, final_states, measure
from core.evaluate.store import Figures
from core.files import replacing, require_free
from core.model.checkpoint import full_config, load_model, load_tokenizer
from core.model.device import pick
from core.model.head import head_weight
from core.model.source import fingerprint
from core.plan.plan import Plan, keep_masks
from core.progress import Joint, Progress, Silent
from core.prune.mask import masked


class Previewer:
    """Measures plans of one checkpoint on some texts."""

    def __init__(
        self, folder: Path, texts: Mapping[str, np.ndarray], *, device: str = "auto", batch_size: int = 4, progress: Progress | None = None
    ) -> None:
        """Open nothing yet.

        Args:
            folder: the uncut checkpoint.
            texts: name -> token blocks ``[N, T]``.
            device: see ``core.model.device.pick``.
            batch_size: blocks a forward pass.
            progress: hears of every forward pass, under the phase ``measure``.
        """
        self.folder, self.texts, self.device, self.batch_size = folder, texts, device, batch_size
        self.progress = progress or Silent()
        self.weights = fingerprint(folder)
        self.tokens = {name: store.tokens_hash(blocks_NT) for name, blocks_NT in texts.items()}

    @cached_property
    def model(self) -> PreTrainedModel:
        """The teacher."""
        return load_model(self.folder, pick(self.device))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The teacher's config, everything spelled out."""
        return full_config(self.folder)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder)

    def teacher(self) -> dict[str, Figures]:
        """Figures of the uncut model on every text; see ``core.evaluate.measure.measure``."""
        return self._figures(store.TEACHER, None, None)

    def plan(self, plan: Plan) -> dict[str, Figures]:
        """Figures of a plan on every text: loss, perplexity, KL to the teacher, agreement.

        Raises:
            UserError: see ``core.evaluate.measure.measure``.
            Stopped: progress asked for it; texts that are finished stay so.
        """
        return self._figures(store.kept(keep_masks(plan)), plan, None)

    def of(self, model: PreTrainedModel, what: str) -> dict[str, Figures]:
        """Figures of a loaded model, such as a repaired one, under a name ``what`` that is made of all that made it."""
        return self._figures(what, None, model)

    def stored(self, what: str) -> dict[str, Figures] | None:
        """Figures that need no forward pass."""
        return store.find_all(self.weights, self.tokens, what)

    def _figures(self, what: str, plan: Plan | None, model: PreTrainedModel | None) -> dict[str, Figures]:
        found = {name: store.find(self.weights, self.tokens[name], what) for name in self.texts}
        missing = [name for name, figures in found.items() if figures is None]
        joint = Joint(self.progress, PHASE, sum(len(self.texts[name]) * (1 if self._asked(name) else 2) for name in missing))
        for name in missing:
            reference = self._reference(name, joint)
            context = masked(self.model, self.config, plan) if plan is not None else nullcontext(model or self.model)
            with context as subject:
                figures = measure(
                    subject, self.texts[name], self._tokenizer, teacher=reference, batch_size=self.batch_size, progress=joint
                )  # fmt: skip
            joint.turn()
            store.save(self.weights, self.tokens[name], what, figures)
            found[name] = figures
        return {name: figures for name, figures in found.items() if figures is not None}

    def _asked(self, name: str) -> bool:
        """Whether the teacher's side of a text is stored."""
        return store.states_file(self.weights, self.tokens[name]).exists()

    def _reference(self, name: str, joint: Joint) -> Reference:
        """What the teacher says on a text: computed once, then read."""
        path, blocks_NT = store.states_file(self.weights, self.tokens[name]), self.texts[name]
        head_VD = head_weight(self.model).detach()
        if not path.exists():
            require_free(path, blocks_NT.size * head_VD.shape[1] * 4)
            states_NTD = final_states(self.model, blocks_NT, batch_size=self.batch_size, progress=joint)
            joint.turn()
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, states_NTD.numpy())
        return Reference(states_NTD=torch.from_numpy(np.load(path)), head_VD=head_VD)
