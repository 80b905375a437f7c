"""Targets | :material/tune: | Choose how small the model shall be, and see at once what that costs and what it keeps."""

import streamlit as st

from app import cached, charts, measured_view, state, target_form
from app.advice_view import advice_view
from app.goal_form import goal_form
from app.subject import subject_of
from app.ui import command_box, page_header, user_errors
from core.model.dims import resized
from core.plan.sizes import problems
from core.report.architecture_figures import architecture_strip
from core.report.format import count, delta, percent, size
from core.specs import Targets

page_header("Targets", "Choose how small the model shall be. Every number follows at once; nothing is cut yet.")
draft = state.draft()
with user_errors():
    card = cached.card(draft.model)
    scores = cached.find_scores(draft)

with st.container(horizontal=True, vertical_alignment="center"):
    for preset in cached.presets(card.config):
        st.button(
            preset.name, key=f"preset_{preset.name}", help=preset.why, on_click=state.update_draft, kwargs={"targets": preset.targets}
        )
    st.space("stretch")
    st.button("Reset", icon=":material/restart_alt:", key="reset", on_click=state.update_draft, kwargs={"targets": Targets()},
              disabled=draft.targets == Targets(), type="tertiary")  # fmt: skip

goal_form(card)
knobs, outcome = st.columns([1, 3], gap="large")
with knobs:
    target_form.sliders(card, draft.targets)

with outcome:
    wrong = problems(card.config, draft.targets)
    for problem in wrong:
        st.error(problem, icon=":material/error:")
    if wrong:
        with st.container(horizontal=True):
            for label, targets in target_form.ways_out(card, draft.targets):
                st.button(label, key=f"way_{label}", icon=":material/build:", on_click=state.update_draft, kwargs={"targets": targets})
        st.stop()

    before, after, context = card.cost, cached.cost(card.config, draft.targets), draft.data.seq_len
    with st.grid(5, min_column_width=120):
        for label, old, new, write, said in (
            ("Parameters", before.parameters, after.parameters, count, None),
            ("Without embedding", before.non_embedding_parameters, after.non_embedding_parameters, count, None),
            ("Weights, bfloat16", before.weight_bytes(), after.weight_bytes(), size, None),
            (
                "FLOPs a token",
                before.flops_per_token(context),
                after.flops_per_token(context),
                count,
                f"Forward pass, with attention over {context} earlier tokens.",
            ),
            ("KV cache a token", before.kv_bytes_per_token, after.kv_bytes_per_token, size, "Keys and values of all layers, 16 bit."),
        ):
            st.metric(
                label,
                write(new),
                delta(new / old - 1),
                delta_color="off",
                delta_arrow="off",
                delta_description=f"of {write(old)}",
                help=said,
            )

    if scores is None:
        st.info("Which layers, heads and neurons stay is known once importance is computed.", icon=":material/grid_on:")
        if st.button("Compute importance", key="to_importance", icon=":material/arrow_forward:"):
            state.go("importance")
        picture = architecture_strip(card.dims, resized(card.dims, draft.targets))
    elif complaint := (subject := subject_of(draft, card, scores)).complaint:
        st.warning(complaint, title="What stays is not known", icon=":material/science:")
        if st.button("Choose another criterion", key="to_importance", icon=":material/arrow_forward:"):
            state.go("importance")
        picture = architecture_strip(card.dims, resized(card.dims, draft.targets))
    else:
        kept, masks = cached.shares(scores, scores.key, card.config, draft.targets, draft.rank, draft.pins), subject.masks
        st.markdown("**Importance that stays**")
        with st.grid(4, min_column_width=120):
            for axis, label in (("layers", "Layers"), ("heads", "Heads"), ("neurons", "FFN neurons"), ("channels", "Channels")):
                st.progress(min(kept[axis], 1.0), text=f"{label} {percent(kept[axis])}")
        picture = architecture_strip(card.dims, resized(card.dims, draft.targets), masks["layers"], masks["heads"])

    if scores is not None and not subject.complaint:
        measured_view.panel(draft, subject)

    st.markdown("**Before and after**")
    st.caption(picture.alt)
    charts.show(picture, "strip")
    advice_view(card)

if draft.targets != Targets() and st.button(
    "Go on to prune and distill", key="to_distill", type="primary", icon=":material/arrow_forward:"
):
    state.go("distill")
command_box(draft.run_spec(kind="prune"))
