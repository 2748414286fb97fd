"""Method: the idea in six steps and a quiz, to read alone or to present."""

import streamlit as st

from u2a_core.dashboard.lesson import STEPS, draw_step, with_scores
from u2a_core.dashboard.quiz import quiz

QUIZ = "Quiz"
SCREENS = [*(str(number) for number, _ in enumerate(STEPS, start=1)), QUIZ]
LESSON = """
.st-key-lesson h1 {padding-top: 0}
.st-key-lesson p, .st-key-lesson li, .st-key-lesson [data-testid="stText"] {font-size: 1.08rem; line-height: 1.42}
.st-key-lesson .st-key-quiz .card p {font-size: 1rem; line-height: 1.36}
.st-key-lesson .card p {margin: 0 0 0.35rem 0; white-space: pre-wrap; overflow-wrap: anywhere}
"""
READING = LESSON + '[data-testid="stMainBlockContainer"] {padding: 2.2rem 2.6rem 1rem}'
PRESENTING = (
    LESSON
    + """
html {font-size: 17.5px !important}
[data-testid="stSidebar"], [data-testid="stHeader"], .st-key-lesson [data-testid="stPopover"] {display: none}
[data-testid="stMainBlockContainer"] {padding: 1rem 2.6rem}
"""
)


def go(screen: str) -> None:
    """To another screen."""
    st.session_state["step"] = screen


with st.container(horizontal=True, vertical_alignment="center"):
    first = None if "step" in st.session_state else SCREENS[0]  # Streamlit warns of a default beside what `go` sets
    screen = st.segmented_control(
        "Step", SCREENS, default=first, key="step", bind="query-params", required=True, label_visibility="collapsed"
    )
    place = SCREENS.index(screen or SCREENS[0])
    before, after = SCREENS[max(place - 1, 0)], SCREENS[min(place + 1, len(SCREENS) - 1)]
    st.button("Previous", key="previous step", shortcut="PageUp", on_click=go, args=(before,), disabled=place == 0)
    last = screen == QUIZ  # there the key goes on with the questions
    key = None if last else "PageDown"
    st.button("Next", key="next step", shortcut=key, type="primary", on_click=go, args=(after,), disabled=last)
    present = st.toggle(
        "Full screen", key="present", bind="query-params",
        help="For a projector: larger, and only the lesson. F11 hides the browser too.",
    )  # fmt: skip
st.html(f"<style>{PRESENTING if present else READING}</style>")
with st.container(key="lesson"):
    if screen == QUIZ:
        st.title("Quiz: which of these bad answers hurts most?")
        with st.container(key="quiz"):
            with_scores(quiz)
    else:
        draw_step(place + 1)
