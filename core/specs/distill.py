"""How the cut model learns."""

from dataclasses import dataclass

from core.specs.spec import Spec, one_of, positive

SCHEDULES = ("cosine", "linear", "wsd")
"""How the learning rate falls after warm-up."""

STATES = ("output", "input", "embedding", "attention")
"""Kinds of intermediate states: a block's output, its MLP's input, the embedding, and how queries, keys and values relate."""

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""Programs of others that can follow a training."""

SHARDINGS = ("none", "student", "both")
"""What the processes of one training share among them, instead of each holding all of it."""

LOSSES = ("kl", "reverse_kl", "jsd", "skew_kl", "mse", "cosine", "top_k", "sampled")
"""Distances of the student from the teacher on the logits; ``core.distill.losses`` holds their formulas."""


@dataclass(frozen=True, kw_only=True)
class DistillSpec(Spec):
    """Retraining with the uncut model as the teacher."""

    steps: int = 60
    """Optimiser steps; 0 leaves the pruned model as it is."""
    batch_blocks: int = 1
    """Blocks a step and device."""
    accumulation: int = 1
    """Forward passes whose gradients are added up before a step."""
    learning_rate: float = 4e-4
    """Peak of the schedule."""
    schedule: str = "cosine"
    """How the rate falls to a tenth of its peak: ``cosine``, ``linear``, or ``wsd`` (level, then linear in the last fifth)."""
    warmup_frac: float = 0.1
    """Part of the steps that the rate takes to rise from 0."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    temperature: float = 1.0
    """Softens both distributions; the loss is multiplied by its square, so that gradients keep their scale."""
    loss: str = "kl"
    """Distance from the teacher on the logits: ``kl``, ``reverse_kl``, ``jsd``, ``skew_kl``, ``mse``, ``cosine``, ``top_k`` or ``sampled``. The paper found
    ``kl`` best."""
    beta: float = 0.5
    """Of ``jsd``: the teacher's share of the mixture that both are compared with, between 0 and 1."""
    skew: float = 0.1
    """Of ``skew_kl``: the teacher's share of what it is compared with, between 0 and 1."""
    top_k: int = 100
    """Of ``top_k``: the teacher's likeliest tokens that are told apart; all others count as one."""
    samples: int = 50
    """Of ``sampled``: tokens drawn from the teacher at each position."""
    kl_weight: float = 1.0
    """Weight of the distance from the teacher on the logits."""
    ce_weight: float = 0.0
    """Weight of the true next token's cross-entropy, nats a token. The paper found 0 best."""
    intermediate: tuple[str, ...] = ("auto",)
    """Intermediate states to learn from too: ``output`` (of a block), ``input`` (of its MLP), ``embedding``, ``attention`` (relations); ``auto`` takes what
    the paper advises: none when little depth went, output and embedding when much did, and none where the other settings leave no room for them."""
    layer_map: tuple[str, ...] = ()
    """Layers whose states are compared, ``student:teacher`` from 0, such as 13:29; ``plan`` takes every kept layer; by default one pair near the end."""
    state_distance: str = "cosine"
    """Distance of intermediate states: ``cosine``, which the paper found best, or ``mse``, relative to the teacher's length."""
    intermediate_weight: float = 1.0
    """Weight of the intermediate states, after they were scaled to weigh as much as the logits."""
    teacher_cache: str = "auto"
    """Keep the teacher's final hidden states of the training blocks on disk, as ``float32`` (exact) or ``bfloat16`` (half the size), and never compute them
    twice; ``off`` computes them each time; ``auto`` keeps them exactly where blocks are seen more than once, nothing else of the teacher is learnt from, and
    the disk has ten times the room."""
    correction_steps: int = 0
    """Steps that adapt the teacher to the training text first; for text unlike what it was made from."""
    correction_rate: float = 2e-5
    """Peak learning rate of those steps."""
    keep_best: bool = False
    """Take the weights of the lowest held-out loss (first text), not the last ones."""
    patience: int = 0
    """Measurements without a lower held-out loss after which training ends, with the best weights; 0 never ends early."""
    gradient_checkpointing: bool = False
    """Compute activations a second time instead of keeping them: less memory, about a third more work."""
    sharding: str = "none"
    """What several processes share instead of each holding all of it (FSDP2): ``none`` (DDP), ``student`` (weights, gradients and Adam moments), or ``both``
    (the teacher's body too). Needs a launcher (docs/scale.md); changes nothing of what is learnt."""
    report_to: tuple[str, ...] = ()
    """Trackers that follow the training too: ``tensorboard``, ``wandb``, ``mlflow``, ``trackio``; each needs its package."""
    sample_prompts: int = 1
    """Prompts that the student continues at each measurement, to be read while it learns."""
    checkpoint_every: int = 20
    """Steps between checkpoints from which the run can resume."""
    evaluate_every: int = 20
    """Steps between measurements on held-out text."""
    dtype: str = "auto"
    """``auto`` takes bfloat16 autocast where the device is made for it, else float32."""
    seed: int = 0
    """Decides the order of the blocks."""

    def own_problems(self) -> list[tuple[str, str]]:
        found = positive(batch_blocks=self.batch_blocks, accumulation=self.accumulation, learning_rate=self.learning_rate, temperature=self.temperature,
                         max_grad_norm=self.max_grad_norm, checkpoint_every=self.checkpoint_every, evaluate_every=self.evaluate_every,
                         top_k=self.top_k, samples=self.samples, correction_rate=self.correction_rate)  # fmt: skip
        found += [
            (name, f"must lie between 0 and 1, got {value}.") for name in ("beta", "skew") if not 0 < (value := getattr(self, name)) < 1
        ]
        weights = (
            "steps",
            "weight_decay",
            "kl_weight",
            "ce_weight",
            "intermediate_weight",
            "correction_steps",
            "patience",
            "sample_prompts",
        )
        found += [(name, f"must be 0 or more, got {value}.") for name in weights if (value := getattr(self, name)) < 0]
        if self.learning_rate > 0.1:
            found.append(("learning_rate", f"{self.learning_rate} would destroy the model; take 1e-5 to 1e-2."))
        if not 0 <= self.warmup_frac <= 1:
            found.append(("warmup_frac", f"must be between 0 and 1, got {self.warmup_frac}."))
        if self.steps and self.kl_weight == 0 == self.ce_weight:
            found.append(("kl_weight", "and ce_weight are both 0, so nothing would be learnt; raise one."))
        if set(self.intermediate) - {"auto"} and not (self.kl_weight and self.intermediate_weight):
            found.append(("intermediate", "is scaled to the logits' loss, so kl_weight and intermediate_weight must be above 0."))
        stored = self.teacher_cache not in ("off", "auto")
        if stored and set(self.intermediate) - {"auto"}:
            found.append(("teacher_cache", "keeps final states only, and intermediate needs others; take one of the two."))
        if stored and self.sharding == "both":
            found.append(
                (
                    "sharding",
                    "both shares the teacher's body, which must be asked by all processes at once; with teacher_cache take student.",
                )
            )
        for name, allowed in (("intermediate", (*STATES, "auto")), ("report_to", TRACKERS)):
            found += [problem for value in getattr(self, name) for problem in one_of(allowed, **{name: value})]
        return found + one_of(("auto", "float32", "bfloat16"), dtype=self.dtype) + self._choices()

    def _choices(self) -> list[tuple[str, str]]:
        """Complaints of the words among the settings."""
        chosen = {
            "loss": LOSSES,
            "schedule": SCHEDULES,
            "state_distance": ("cosine", "mse"),
            "teacher_cache": ("auto", "off", "float32", "bfloat16"),
            "sharding": SHARDINGS,
        }
        return [problem for name, allowed in chosen.items() for problem in one_of(allowed, **{name: getattr(self, name)})]
