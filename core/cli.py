"""The command line: every screen of the dashboard is also a command, and both leave the same run folders behind."""

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import UserError
from core.options import Option, options, spec_from
from core.report import format as fmt
from core.runs import control
from core.runs.folder import Run, all_runs, create, find
from core.runs.worker import work
from core.specs import GOAL_MEASURES, GOAL_SHAPES, WEIGHT_DTYPES, Goal, RunSpec, Targets
from core.terminal import Terminal, console, errors, show_card, show_costs, show_results, table
from core.workspace import home

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=False,
    help="Coppice: score a language model, choose what to cut, prune it, and let it regrow from the uncut model.",
)  # fmt: skip

WHAT = {
    "probe": "Time the model on this machine: tokens a second read, and written.",
    "score": "Compute the importance of layers, heads, neurons and embedding channels.",
    "preview": "Score, plan, and measure the plan on held-out text without cutting.",
    "search": "Find the best sizes under a budget: estimate all, measure the best by masks, keep what wins.",
    "prune": "Score, plan, cut, and measure the pruned model.",
    "distill": "Do all that, then retrain the pruned model with the uncut one as its teacher, and measure again.",
    "family": "Make a chain of ever smaller models, each pruned and distilled from the one before.",
    "evaluate": "Measure a model, with --against also against its teacher.",
    "generate": "Continue prompts with one or several models.",
}
"""Kind of run -> its help."""

SHARED = ("score", "prune", "distill")
"""Kinds of run that several processes can do together."""

RunName = Annotated[str, typer.Argument(help="A run's folder, or its id.")]


def main() -> None:
    """Run the command line. A mistake that the user can put right is one sentence and exit code 2."""
    try:
        app()
    except UserError as error:
        errors.print(f"[bold red]Error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)


def _command(kind: str) -> Callable[..., None]:
    """The command of a kind of run, its options read from the spec."""
    offered = {option.flag.replace("-", "_"): option for option in options(kind)}

    def command(**values: Any) -> None:
        given = {offered[name].path: tuple(value) if offered[name].many else value for name, value in values.items()}
        carry_out(with_sizes(spec_from(kind, given)))

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=_annotation(option), default=_default(option))
        for name, option in offered.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _annotation(option: Option) -> Any:
    kind: Any = list[option.type] if option.many else option.type | None if option.default is None else option.type  # type: ignore[name-defined]
    return Annotated[
        kind,
        typer.Option(f"--{option.flag}", help=option.help, show_default=option.default not in (None, ""), rich_help_panel=_panel(option)),
    ]


def _default(option: Option) -> Any:
    return list(option.default) if option.many else option.default


def _panel(option: Option) -> str:
    return {
        "data": "Text",
        "score": "Importance",
        "rank": "Ranking",
        "targets": "Targets",
        "goal": "Goal",
        "pins": "Pins",
        "search": "Search",
        "distill": "Distillation",
        "evaluate": "Evaluation",
    }.get(option.path.split(".")[0], "Run")


for _kind, _help in WHAT.items():
    app.command(_kind, help=_help)(_command(_kind))


def with_sizes(spec: RunSpec) -> RunSpec:
    """The spec with the targets that its goal asks for, beside those that are named.

    Raises:
        UserError: the goal cannot be met, or the model is not there.
    """
    if not spec.goal.at_most:
        return spec
    from core.model.card import card
    from core.plan.goals import reach

    return replace(spec, targets=reach(card(spec.model).config, spec.goal, spec.targets))


def carry_out(spec: RunSpec) -> None:
    """Make a run and carry it out here, together with the other processes if a launcher started several."""
    if launched() == 1:
        in_foreground(create(spec))
        return
    from core.score.share import place, tell

    check_shared(spec.kind)
    run = Run(Path(tell(str(create(spec).path) if place()[0] == 0 else "")))
    take_part(run)


def take_part(run: Run) -> None:
    """Lead the run if this is the only process or the first of several, else follow the one that does."""
    check_shared(run.spec.kind)
    if os.environ.get("RANK", "0") == "0":
        in_foreground(run)
        return
    from core.runs.steps import follow

    follow(run)


def check_shared(kind: str) -> None:
    """Refuse several processes for what only one can do.

    Raises:
        UserError: this kind of run is not shared among processes.
    """
    if launched() > 1 and kind not in SHARED:
        raise UserError(f"Only {', '.join(SHARED)} are shared among processes; start {kind} without a launcher.")


def launched() -> int:
    """How many processes a launcher (``accelerate launch``, ``torchrun``) started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def in_foreground(run: Run) -> None:
    """Carry out a run in this terminal, and print what it found."""
    console.print(f"Run {run.id} in {run.path}", highlight=False, soft_wrap=True)
    with Terminal() as terminal:
        code = work(run, mirror=terminal)
    status = run.status()
    if status.error:
        errors.print(f"[bold red]Error:[/] {status.error['message']} {status.error['hint']}".rstrip(), highlight=False, soft_wrap=True)
    show_results(run.results())
    for name in ("model", "pruned"):
        if (run.path / name).exists():
            console.print(f"Model: {run.path / name}", highlight=False, soft_wrap=True)
            break
    if (run.path / "report.html").exists():
        console.print(f"Report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)
    for prompt, *answers in zip(run.generations().get("prompts", []), *run.generations().get("answers", {}).values(), strict=True):
        table(prompt, [{"model": role, "continuation": text} for role, text in zip(run.generations()["answers"], answers, strict=True)])
    if code:
        raise typer.Exit(code)


@app.command()
def run(name: RunName) -> None:
    """Start or resume a run folder here; the dashboard starts its workers with this command, ``accelerate launch`` several of it."""
    take_part(find(name))


@app.command()
def demo() -> None:
    """The main job on the embedded model: score, plan, prune a quarter away, distill, compare, report."""
    in_foreground(create(demo_spec()))


def demo_spec() -> RunSpec:
    """What ``demo`` does: cut a quarter of SmolLM2-135M away, and let it regrow for some nine minutes.

    Channels and neurons are cut, heads and depth stay: the recipe for width of arXiv 2408.11796. The repair fits on the calibration blocks
    alone, a minute and a half instead of six.
    """
    return spec_from(
        "distill",
        {"name": "Demo", "targets.hidden_size": 504, "targets.intermediate_size": 1152, "score.ppl_blocks": 1, "repair.blocks": 16,
         "distill.steps": 100, "distill.evaluate_every": 25, "distill.checkpoint_every": 50},
    )  # fmt: skip


@app.command()
def fetch(
    every: Annotated[bool, typer.Option("--all", help="Also the texts that are fetched when first asked for, 63 MB.")] = False,
) -> None:
    """Bring the embedded model and the default's texts into the workspace."""
    from core.model.embedded import ensure_model, ensure_text
    from core.specs import EMBEDDED_TEXTS, DataSpec

    usual = DataSpec()
    texts = EMBEDDED_TEXTS if every else [text.source for text in (usual.text, *usual.elsewhere)]
    with Terminal() as terminal:
        places = [ensure_model(terminal), *(ensure_text(name, terminal) for name in texts)]
    for place in places:
        console.print(f"Here: {place}", highlight=False, soft_wrap=True)


@app.command("inspect")
def inspect_model(model: Annotated[str, typer.Argument(help="embedded, a local folder, or a hub id.")] = "embedded") -> None:
    """Show a model's dimensions, cost, and what of it can be cut, from its config.json alone."""
    from core.model.card import card

    show_card(card(model))


@app.command()
def plan(
    model: Annotated[str, typer.Option(help="embedded, a local folder, or a hub id.")] = "embedded",
    num_hidden_layers: Annotated[int | None, typer.Option()] = None,
    hidden_size: Annotated[int | None, typer.Option()] = None,
    intermediate_size: Annotated[int | None, typer.Option()] = None,
    num_attention_heads: Annotated[int | None, typer.Option()] = None,
    num_key_value_heads: Annotated[int | None, typer.Option()] = None,
    at_most: Annotated[
        str, typer.Option(help="A limit, such as 107.6M, 200MB or 80%; sizes that are named stay, the others are found.")
    ] = "",
    measure: Annotated[str, typer.Option(help=f"What is limited: {', '.join(GOAL_MEASURES)}.")] = "parameters",
    shape: Annotated[str, typer.Option(help=f"What shrinks: {', '.join(GOAL_SHAPES)}.")] = "ffn",
    multiple: Annotated[int, typer.Option(help="FFN and hidden sizes are multiples of this; 1 takes any size.")] = 64,
    weights_dtype: Annotated[
        str, typer.Option(help=f"Number format of weights that are counted in bytes: {', '.join(WEIGHT_DTYPES)}.")
    ] = "bfloat16",
    context: Annotated[int, typer.Option(help="Tokens in the key-value cache, or of the prompt.")] = 4096,
    sequences: Annotated[int, typer.Option(help="Sequences in the key-value cache.")] = 1,
) -> None:
    """Show what a cut to these sizes, or to a limit, would cost and save. Needs no scores and changes nothing."""
    from core.model.card import card
    from core.model.cost import cost_of
    from core.model.dims import resized
    from core.plan.goals import reach
    from core.plan.sizes import problems

    targets = Targets(
        num_hidden_layers=num_hidden_layers, hidden_size=hidden_size, intermediate_size=intermediate_size, num_attention_heads=num_attention_heads,
        num_key_value_heads=num_key_value_heads,
    ).check()  # fmt: skip
    before = card(model)
    if at_most:
        goal = Goal(at_most=at_most, measure=measure, shape=shape, multiple=multiple, dtype=weights_dtype, context=context, batch=sequences)
        targets = reach(before.config, goal.check(), targets)
        sizes = " ".join(f"--{key.replace('_', '-')} {size}" for key, size in targets.to_dict().items() if size is not None)
        console.print(f"Sizes: {sizes}", highlight=False)
    if found := problems(before.config, targets):
        raise UserError("\n".join(found))
    after = cost_of(before.config, resized(before.dims, targets))
    show_costs({"before": before.cost, "after": after})
    console.print(f"{fmt.delta(after.parameters / before.cost.parameters - 1)} parameters.", highlight=False)


@app.command()
def report(
    name: RunName, output: Annotated[Path | None, typer.Option(help="Where to write it; by default into the run's folder.")] = None
) -> None:
    """Write a run's report as one self-contained HTML file."""
    from core.report.html import write_report

    found = find(name)
    console.print(f"Report: {write_report(found, output or found.path / 'report.html')}", highlight=False, soft_wrap=True)


@app.command()
def criteria() -> None:
    """List the criteria of importance: for which units, what they measure, where they come from."""
    from core.score.criteria import CRITERIA
    from core.score.passes import PASSES

    rows = [
        {"for": found.axis, "name": found.name, "criterion": found.title, "measures": found.says, "from": found.paper,
         "measured": PASSES[found.needs].advice or "always"}
        for found in CRITERIA.values()
    ]  # fmt: skip
    table("Criteria of importance", rows)


@app.command("effort")
def show_effort(
    tokens: Annotated[list[float], typer.Option(help="Tokens of retraining; may be given several times.")] = [1e9, 94e9],  # noqa: B006
    context: Annotated[int, typer.Option(help="Tokens a block.")] = 8192,
    model: Annotated[str | None, typer.Option(help="A teacher: a local folder or hub id; by default three published shapes.")] = None,
) -> None:
    """Estimate what distilling a model into half its size costs on one NVIDIA H100; needs no weights."""
    from core.model.card import card
    from core.model.cost import cost_of
    from core.plan.effort import H100_FLOPS, PUBLISHED, UTILISATION, effort, half

    teachers = {model: card(model).config} if model else PUBLISHED
    efforts = [(name, effort(cost_of(config), half(config), count, context)) for name, config in teachers.items() for count in tokens]
    rows = [
        {"teacher": name, "student": fmt.count(found.student.parameters), "tokens": fmt.count(found.tokens), "operations": f"{found.flops:.2g}",
         "H100 hours": f"≈ {found.device_hours:,.0f}", "weights and optimiser": fmt.size(found.memory_bytes)}
        for name, found in efforts
    ]  # fmt: skip
    table("Distilling into half the size, estimated", rows)
    console.print(f"Hours: {H100_FLOPS / 1e12:.0f} TFLOPS at {UTILISATION:.0%}; operations and bytes are counted.", highlight=False)


@app.command("runs")
def list_runs() -> None:
    """List all runs, newest first."""
    rows = [_run_row(found) for found in all_runs()]
    if rows:
        table("Runs", rows)
    else:
        console.print(f"No runs yet in {home()}. Start one with: python -m core demo", highlight=False)


def _run_row(found: Run) -> dict[str, str]:
    try:
        status = found.status()
        return {"run": found.id, "state": status.state, "phase": status.phase or fmt.MISSING, "name": found.spec.name}
    except UserError as error:  # another version's run must not hide the others
        return {"run": found.id, "state": "not readable", "phase": fmt.MISSING, "name": str(error)}


@app.command()
def stop(name: RunName, discard: Annotated[bool, typer.Option("--discard", help="Throw away checkpoints and model.")] = False) -> None:
    """Ask a run to stop at its next safe point, keeping what it made."""
    control.cancel(find(name), keep=not discard)
    console.print("Asked. Its last word will be in: python -m core runs")
