"""What went wrong with a run, in words that help: a small table from causes to remedies."""

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.runs.machine import memory_bytes

Failure = dict[str, str]
"""``type`` (a class name), ``message`` (what happened), ``hint`` (what to do; empty if the message says it)."""


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A hint and how to know that it fits: the error's class, or words in its message (lower case)."""

    kinds: tuple[type[BaseException], ...] = ()
    words: tuple[str, ...] = ()
    hint: str

    def fits(self, error: BaseException) -> bool:
        """Say whether this remedy is for ``error``."""
        text = str(error).lower()
        return isinstance(error, self.kinds) or any(word in text for word in self.words)


MEMORY_HINT = (
    "Start a run with a smaller batch or sequence length (accumulation keeps the effective batch), or free some memory and resume."
)

REMEDIES = (
    Remedy(
        kinds=(MemoryError,),
        words=("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory"),
        hint=MEMORY_HINT,
    ),
    Remedy(words=("no space left on device", "disk quota exceeded"), hint="The disk is full. Free some space, then resume."),
    Remedy(
        kinds=(FloatingPointError,),
        words=("non-finite", "nan or inf"),
        hint="The numbers went out of range. Start again with a lower learning rate, or with dtype float32.",
    ),
    Remedy(
        words=("no nvidia driver", "not compiled with cuda", "no cuda gpus", "invalid device ordinal"),
        hint="This machine has no such device. Choose device auto or cpu.",
    ),
    Remedy(
        words=("cuda error", "device-side assert"),
        hint="The graphics card reported a fault. Resume; if it happens again, try device cpu to see the cause.",
    ),
    Remedy(
        words=("connection closed by peer", "connection reset by peer", "broken pipe", "gloo", "nccl"),
        hint="Another process of this run ended; its own words are in the log. Resume, with as many processes as you like.",
    ),
    Remedy(
        words=("safetensor", "incomplete metadata", "invalid header"),
        hint="A weights file seems to be damaged or cut short. Download the model again, then start anew.",
    ),
    Remedy(kinds=(ImportError,), hint="A package is missing or too old. Install requirements.txt again, then resume."),
    Remedy(kinds=(ConnectionError, TimeoutError), hint="A server could not be reached. Check the network, or name a local folder."),
    Remedy(kinds=(FileNotFoundError,), hint="A file that the run needs was moved or deleted. Put it back and resume, or start anew."),
    Remedy(kinds=(PermissionError,), hint="A file or folder may not be written or read. Change its permissions, then resume."),
)
"""The first that fits is shown, so the particular stand before the general."""

UNKNOWN_HINT = "This looks like a fault in Coppice. The log below holds the full story; what was saved can be resumed."

NEARLY_ALL = 0.8
"""Part of the memory in a worker's last heartbeat from which its sudden end is put down to memory."""

NEARLY_FULL_BYTES = 16 * 2**20
"""Free disk space below which a sudden end is put down to the disk."""


def explain(error: BaseException) -> Failure:
    """Describe an error that ended a run. A ``UserError`` carries its own hint."""
    message = str(error) or type(error).__name__
    if isinstance(error, UserError):
        return {"type": "UserError", "message": message, "hint": ""}
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return {"type": "OSError", "message": message, "hint": "The disk is full. Free some space, then resume."}
    hint = next((remedy.hint for remedy in REMEDIES if remedy.fits(error)), UNKNOWN_HINT)
    return {"type": type(error).__name__, "message": message, "hint": hint}


def explain_silence(folder: Path, phase: str, used_bytes: int | None) -> Failure:
    """Guess why a worker ended without a word, from its last heartbeat (phase, memory in bytes) and the state of the disk."""
    during = f"during {phase!r}" if phase else "before it began"
    message = f"The worker ended {during} without a word: it was killed, or the machine stopped."
    hint = "Resume to go on from the last checkpoint; the log below shows its last words."
    if used_bytes and used_bytes > NEARLY_ALL * memory_bytes():
        message = f"The worker ended {during}, holding {used_bytes / 1e9:.1f} of {memory_bytes() / 1e9:.1f} GB: the system probably ran out of memory."
        hint = MEMORY_HINT
    elif shutil.disk_usage(folder).free < NEARLY_FULL_BYTES:
        message = f"The worker ended {during}, and the disk that holds {folder} is full."
        hint = "Free some space, then resume."
    return {"type": "Interrupted", "message": message, "hint": hint}
