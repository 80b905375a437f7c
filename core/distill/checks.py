"""What a training must have before it starts; everything that is refused here would fail later, or worse, would not."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from core.distill.checkpoints import all_checkpoints
from core.errors import UserError
from core.files import require_free, tree_bytes
from core.model.checkpoint import load_tokenizer
from core.specs import DistillSpec


def check_blocks(train_NT: np.ndarray, context: int, vocabulary: int) -> None:
    """Refuse blocks that cannot be learnt from by models of this context and vocabulary.

    Raises:
        UserError: there are none, or they are too short, too long, or of another vocabulary.
    """
    if train_NT.ndim != 2 or len(train_NT) < 1 or train_NT.shape[1] < 2:
        raise UserError(f"Training needs at least one block of at least 2 tokens, got blocks of shape {train_NT.shape}.")
    if train_NT.shape[1] > context:
        raise UserError(f"Training blocks of {train_NT.shape[1]} tokens are longer than the models' context of {context}. Lower seq_len.")
    if not 0 <= int(train_NT.min()) <= int(train_NT.max()) < vocabulary:
        raise UserError(
            f"Training blocks hold token {int(train_NT.max())}, but the vocabulary has {vocabulary}. Build them with this model's tokenizer."
        )


def shared_vocabulary(folders: tuple[Path, Path], sizes: tuple[int, int]) -> int:
    """How many rows of student's and teacher's heads mean the same tokens.

    Heads may be of different heights where the rest is padding: then both tokenizers must be there, be the same, and fit.

    Args:
        folders: the two checkpoints.
        sizes: rows of their heads.

    Raises:
        UserError: the tokenizers differ, or the smaller head lacks tokens.
    """
    if not _same_tokenizer(folders):
        student, teacher = (load_tokenizer(folder).get_vocab() for folder in folders)
        if student != teacher:
            raise UserError(
                f"Student and teacher must share one tokenizer; {_difference(student, teacher)}. Take a teacher of the same family."
            )
    if sizes[0] == sizes[1]:
        return sizes[0]
    told = f"Student and teacher must share one vocabulary; the student has {sizes[0]} tokens, the teacher {sizes[1]}"
    if not all((folder / "tokenizer.json").exists() for folder in folders):
        raise UserError(f"{told}, and without their tokenizers nobody can say which are padding.")
    used = max(load_tokenizer(folders[0]).get_vocab().values()) + 1
    if used > min(sizes):
        raise UserError(f"{told}, and the tokenizer uses {used}.")
    return min(sizes)


def _same_tokenizer(folders: tuple[Path, Path]) -> bool:
    """Whether the tokenizers are the same file, or one is missing (a cut model's is copied to it only when it is finished)."""
    files = [folder / "tokenizer.json" for folder in folders]
    return not all(file.exists() for file in files) or files[0].read_bytes() == files[1].read_bytes()


def _difference(student: dict[str, int], teacher: dict[str, int]) -> str:
    """One token that the two do not number alike."""
    token = min(token for token in student.keys() | teacher.keys() if student.get(token) != teacher.get(token))
    one, other = (f"is {vocabulary[token]}" if token in vocabulary else "is missing" for vocabulary in (student, teacher))
    return f"{token!r} {one} in the student's and {other} in the teacher's"


def check_processes(spec: DistillSpec, processes: int, checkpoints: Path) -> None:
    """Refuse to begin in one process what is to be sharded over several. To go on in one is allowed: checkpoints are whole.

    Raises:
        UserError: a process alone was asked to shard.
    """
    if spec.sharding != "none" and processes == 1 and not all_checkpoints(checkpoints):
        raise UserError(
            f"sharding: {spec.sharding} needs several processes, and this is one. Start them with a launcher, such as accelerate launch "
            "--num_processes 8 -m core run FOLDER (docs/scale.md), or take none."
        )


def check_disk(model: PreTrainedModel, out: Path, checkpoints: Path, kept: int, best: bool) -> None:
    """Refuse to start what the disk cannot hold, all in float32: ``out``, ``kept`` checkpoints (weights and two Adam moments), the best weights.

    Raises:
        UserError: less is free, what ``checkpoints`` holds already taken into account.
    """
    already = sum(tree_bytes(folder) for pattern in ("checkpoint-*", "best-*") for folder in checkpoints.glob(pattern))
    require_free(out, (3 * kept + 1 + 2 * best) * 4 * model.num_parameters() - already)
