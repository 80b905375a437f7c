"""Numbers as people read them: three significant digits, a unit, and ``≈`` where a number is an estimate.

The dashboard, the command line and the report all write numbers through these functions, so the same quantity looks the
same everywhere. Whatever was not measured is ``–``, never a zero.
"""

import math
from collections.abc import Callable, Sequence

MISSING = "–"
"""What stands where there is no number."""

MINUS = "−"
ESTIMATED = "≈ "

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

COUNT_STEPS = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k"), (1, ""))
SIZE_STEPS = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B"))
EXACT_BELOW = 10_000
"""Counts smaller than this are written out."""


def number(value: float | None, *, digits: int = 3, estimated: bool = False) -> str:
    """Write a value with ``digits`` significant digits: 28.104 -> ``28.1``, 0.3512 -> ``0.351``, 4321.5 -> ``4320``."""
    return _dressed(value, lambda positive: _significant(positive, digits), estimated)


def count(value: float | None, *, estimated: bool = False) -> str:
    """Write how many: 134515008 -> ``135 M``, 576 -> ``576``."""
    return _dressed(value, lambda positive: f"{positive:.0f}" if positive < EXACT_BELOW else _scaled(positive, COUNT_STEPS), estimated)


def size(value: float | None, *, estimated: bool = False) -> str:
    """Write bytes in decimal units: 269030016 -> ``269 MB``."""
    return _dressed(value, lambda positive: _scaled(positive, SIZE_STEPS), estimated)


def percent(value: float | None, *, estimated: bool = False) -> str:
    """Write a fraction in hundredths: 0.203 -> ``20.3 %``."""
    return _dressed(value, lambda positive: f"{100 * positive:.1f} %", estimated)


def delta(value: float | None, *, estimated: bool = False) -> str:
    """Write a relative change with its sign: -0.203 -> ``−20.3 %``, 0.05 -> ``+5.0 %``."""
    text = percent(value, estimated=estimated)
    rises = value is not None and value > 0 and text.removeprefix(ESTIMATED) != "0.0 %"
    return text.replace(ESTIMATED, ESTIMATED + "+") if rises and estimated else "+" + text if rises else text


def nats(value: float | None, *, estimated: bool = False) -> str:
    """Write a loss or divergence in nats: 0.3512 -> ``0.351 nats``."""
    return rate(value, "nats", estimated=estimated)


def rate(value: float | None, unit: str, *, estimated: bool = False) -> str:
    """Write a value with any unit: (412.3, "tokens/s") -> ``412 tokens/s``."""
    text = number(value, estimated=estimated)
    return text if text == MISSING else f"{text} {unit}"


def duration(seconds: float | None, *, estimated: bool = False) -> str:
    """Write a time span in its two largest units: 200 -> ``3 min 20 s``, 4.25 -> ``4.2 s``."""
    return _dressed(seconds, _span, estimated)


def plural(n: int, noun: str, many: str | None = None) -> str:
    """Write how many of what: (1, "layer") -> ``1 layer``, (3, "layer") -> ``3 layers``."""
    return f"{count(n)} {noun if n == 1 else many or noun + 's'}"


def listed(items: Sequence[str]) -> str:
    """Join names as a sentence does: a; a and b; a, b and c."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def _dressed(value: float | None, write: Callable[[float], str], estimated: bool) -> str:
    """Add sign and ``≈`` to what ``write`` makes of the magnitude; say so if there is none."""
    if value is None or math.isnan(value):
        return MISSING
    text = "∞" if math.isinf(value) else write(abs(value))
    sign = MINUS if value < 0 and any(digit in text for digit in "123456789∞") else ""
    return f"{ESTIMATED if estimated else ''}{sign}{text}"


def _significant(positive: float, digits: int) -> str:
    """Round to ``digits`` significant digits without an exponent, save for the very small."""
    if positive == 0:
        return "0"
    rounded = float(f"{positive:.{digits - 1}e}")
    exponent = math.floor(math.log10(rounded))
    if exponent < -4:
        mantissa, power = f"{rounded:.{digits - 1}e}".split("e-")
        return f"{mantissa} × 10⁻{str(int(power)).translate(SUPERSCRIPT)}"
    return f"{rounded:.{max(0, digits - 1 - exponent)}f}"


def _scaled(positive: float, steps: tuple[tuple[float, str], ...]) -> str:
    """Write with the largest unit that leaves at least 1 before the point, after rounding to three digits."""
    rounded = float(f"{positive:.2e}")
    factor, unit = next((step for step in steps if rounded >= step[0]), steps[-1])
    return (f"{positive:.0f}" if factor == 1 else _significant(rounded / factor, 3)) + unit


def _span(seconds: float) -> str:
    """Write a positive time span."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, names in ((86_400, 3_600, ("d", "h")), (3_600, 60, ("h", "min")), (60, 1, ("min", "s"))):
        if whole >= large:
            return f"{whole // large} {names[0]} {whole % large // small} {names[1]}"
    return f"{whole} s"
