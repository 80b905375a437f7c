"""The view that compares criteria: how alike they rank, what they would both keep, and how sure each is."""

import streamlit as st

from app import cached, charts, state
from app.subject import Subject
from core.report.agreement_figures import overlap_matrix, spearman_matrix, stability_bars
from core.report.format import listed
from core.score.criteria import criteria_of

AXIS_NAMES = {"layers": "Layers", "heads": "Heads", "neurons": "Neurons", "channels": "Embedding"}


def agreement(subject: Subject) -> None:
    """Compare the criteria of one axis."""
    axis = st.segmented_control(
        "Criteria for", list(AXIS_NAMES), format_func=AXIS_NAMES.__getitem__, required=True,
        **state.bind("agreement_axis", state.recall("agreement_axis", "heads"), lambda value: state.remember("agreement_axis", value)),
    )  # fmt: skip
    if subject.complaint:
        st.warning(f"{subject.complaint} Until then everything counts as kept.", icon=":material/warning:")
    _matrices(subject, str(axis))
    st.subheader("How sure each ranking is", anchor=False)
    _stability(subject, str(axis))


def _matrices(subject: Subject, axis: str) -> None:
    """Rank correlation of all pairs, and beside it what both keep at the draft's size."""
    kept_count, units = subject.kept_count(axis), subject.masks[axis].shape[-1]
    found = cached.agreement(subject.scores, axis, subject.draft.rank, kept_count, subject.removed)
    titles = [criteria_of(axis)[name].title for name in found.names]
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**How alike they rank**")
        picture = spearman_matrix(titles, found.spearman_CC)
        st.caption(picture.alt)
        charts.show(picture, "spearman")
    with right:
        st.markdown("**What both would keep, in percent**")
        if kept_count == units:
            st.info(
                "The draft keeps all of these, so every criterion keeps the same. Choose a target to compare cuts.", icon=":material/tune:"
            )
            if st.button("Choose targets", key="to_targets", icon=":material/arrow_forward:"):
                state.go("targets")
            return
        picture = overlap_matrix(titles, found.overlap_CC, kept_count / units)
        st.caption(picture.alt)
        charts.show(picture, "overlap")


def _stability(subject: Subject, axis: str) -> None:
    """How far the parts of the calibration text agree under each criterion, and how many cuts that leaves open."""
    about = criteria_of(axis)
    found = {name: subject.confidence(axis, name) for name in subject.ranks(axis)}
    sure = {name: one.stability for name, one in found.items() if one is not None}
    if sure:
        undecided = [int(many.sum()) for name in sure if (many := subject.undecided(axis, name)) is not None]
        cutting = subject.kept_count(axis) < subject.masks[axis].shape[-1]
        picture = stability_bars(
            [about[name].title for name in sure], list(sure.values()), undecided if cutting else None, subject.units(axis)
        )
        meaning = " Undecided are units whose rank, give or take two standard errors, reaches over the cut." if cutting else ""
        parts = f"The calibration text was scored in {subject.scores.num_shards} parts. The bars tell how alike these rank."
        st.caption(f"{parts}{meaning} {picture.alt}")
        charts.show(picture, "stability")
    if unsure := [about[name].title for name in found if name not in sure]:
        st.caption(
            f":material/info: Of {listed(unsure)} it cannot be told: that needs a criterion that is measured part by part, and two parts or more."
        )
