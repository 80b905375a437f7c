"""What a step of distillation costs, in time against its two bodies and one head, and in memory against logits that are all held at once."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness import Bar, Outcome, interleaved, ratio, timing_rows
from bench.regrowth import WIDTH, Lab, Start
from core.distill.fused import fused_losses
from core.distill.loop import next_tokens
from core.distill.losses import Objective
from core.distill.teacher import Teacher, load_teacher
from core.model.checkpoint import load_model
from core.model.head import head_weight, hidden_states
from core.progress import Silent

FORWARD_KL = Objective(weights={"kl": 1.0, "ce": 0.0})
"""What a run learns from by default, and what it looks at."""

PLAIN, OURS, CACHED = "two bodies and one head", "distillation step", "with the teacher's states stored"
VOCABULARY, STUDENT_WIDTH, TEACHER_WIDTH = 49152, 504, 576
TOKENS, TOKENS_OF_LOSS = 512, 8 * 512


def measure(*, quick: bool) -> Outcome:
    """Time a step of a quarter smaller student in processor time, which says more than the clock where others work beside."""
    lab = Lab()
    blocks_NT = lab.blocks.train_NT.reshape(-1, TOKENS)[:1]
    seconds = interleaved(steps(lab.model(Start(targets=WIDTH)), lab.teacher, blocks_NT), 1 if quick else 5, clock=time.process_time)
    fused, materialised = loss_memory(256 if quick else TOKENS_OF_LOSS)
    return Outcome(
        settings={"tokens a step": TOKENS, "tokens of the loss whose memory is measured": 256 if quick else TOKENS_OF_LOSS,
                  "time": "of the processor, all threads", "threads": torch.get_num_threads()},
        bars=[
            Bar(name="step / (two bodies and one head)", value=ratio(seconds, OURS, PLAIN), limit="<= 1.10"),
            Bar(name="step from stored states / step", value=ratio(seconds, CACHED, OURS), limit="<= 0.80"),
            Bar(name="peak memory of the loss / with all logits at once", value=fused / materialised, limit="<= 0.25"),
        ],
        rows=timing_rows(seconds),
    )  # fmt: skip


def steps(student_folder: Path, teacher_folder: Path, blocks_NT: np.ndarray) -> dict[str, Callable[[], None]]:
    """Forward and backward of one block: with an ordinary cross-entropy, distilled, and distilled from stored states."""
    device, cpu = torch.device("cpu"), Silent()
    student = load_model(student_folder)
    live, stored = (load_teacher(teacher_folder, device, kept, blocks_NT, np.arange(1), "float32", cpu) for kept in ("off", "float32"))
    tokens_BT, block_B = torch.from_numpy(blocks_NT[:1].astype(np.int64)), torch.zeros(1, dtype=torch.long)
    targets_N = next_tokens(tokens_BT).flatten()
    stored.states(tokens_BT, block_B)

    def plain() -> None:
        live.states(tokens_BT, block_B)
        logits_NV = hidden_states(student, tokens_BT).flatten(0, 1) @ head_weight(student).T
        F.cross_entropy(logits_NV, targets_N).backward()

    def distilled(teacher: Teacher) -> None:
        teacher_NE = teacher.states(tokens_BT, block_B).flatten(0, 1)
        student_ND = hidden_states(student, tokens_BT).flatten(0, 1)
        normaliser = len(targets_N) - 1
        total, _ = fused_losses(student_ND, head_weight(student), teacher_NE, teacher.head_VE, targets_N, FORWARD_KL, normaliser=normaliser)
        total.backward()

    def anew(action: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            student.zero_grad(set_to_none=True)
            action()

        return run

    return {PLAIN: anew(plain), OURS: anew(lambda: distilled(live)), CACHED: anew(lambda: distilled(stored))}


def loss_memory(tokens: int) -> tuple[int, int]:
    """Bytes at the peak of forward KL's value and gradients, fused and with all logits at once, each in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        fused, materialised = pool.map(_peak_bytes, [(True, tokens), (False, tokens)], chunksize=1)
    return fused, materialised


def _peak_bytes(task: tuple[bool, int]) -> int:
    """How far the resident memory rises over states and heads. Linux only, where a process can forget its peak."""
    fused, tokens = task
    states_ND, head_VD = (
        torch.randn(tokens, STUDENT_WIDTH).requires_grad_(),
        torch.randn(VOCABULARY, STUDENT_WIDTH).mul_(0.02).requires_grad_(),
    )
    states_NE, head_VE = torch.randn(tokens, TEACHER_WIDTH), torch.randn(VOCABULARY, TEACHER_WIDTH).mul_(0.02)
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")
    if fused:
        targets_N = torch.zeros(tokens, dtype=torch.long)
        fused_losses(states_ND, head_VD, states_NE, head_VE, targets_N, Objective(weights={"kl": 1.0}), normaliser=tokens)[0].backward()
    else:
        _materialised(states_ND @ head_VD.T, states_NE @ head_VE.T).backward()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(peak.split()[1]) - before


def _materialised(student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """Forward KL as most libraries write it."""
    return F.kl_div(student_NV.log_softmax(-1), teacher_NV.log_softmax(-1), log_target=True, reduction="batchmean")
