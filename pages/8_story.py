"""Story | :material/auto_stories: | What compression costs and what it buys, for people who decide."""

import streamlit as st

from app import story
from app.ui import empty_state

_, page, _ = st.columns([1, 8, 1])
with page:
    st.title("How small can it be?", anchor=False)
    found = story.stories()
    if not found:
        empty_state(
            "auto_stories",
            "Nothing to tell yet",
            "The story is told from finished runs that were measured. Once there is one, it stands here.",
        )
        st.link_button("Open the dashboard", "./", icon=":material/arrow_forward:", help="To make a first run there.")
        st.stop()

    names = list(found)
    name = (
        names[0] if len(names) == 1 else st.segmented_control("Original model", names, default=names[0], required=True, key="story_model")
    )
    runs, options = found[name]
    st.caption(
        f"{name}, and what was made of it. Only measured models are shown, and only those that no other beats in size and quality at once."
    )
    chosen = story.slider(options)
    st.space("small")
    story.hero(options[chosen])
    st.space("medium")
    story.picture(options, chosen)
    story.words(runs[options[chosen].run], options[chosen])
