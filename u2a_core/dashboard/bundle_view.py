"""The bundle that is served, its scores by name, and how a figure is put on a page."""

from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go
import streamlit as st

from u2a_core.bundle import open_bundle
from u2a_core.errors import U2AError
from u2a_core.store.scores import Scores
from u2a_core.store.trust import trust_told

# Plotly's own button would upload the figure, data-set text included, to a public server.
PLOTLY_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "toImageButtonOptions": {"format": "svg"},
}


def scores_choice(arguments: Sequence[str]) -> None:
    """Sidebar: name the served bundle, choose among its scores; the choice is kept in the URL (`?scores=`)."""
    if not arguments:
        st.error("No bundle is served. Start the studio with: u2a serve BUNDLE")
        st.stop()
    try:
        bundle = open_bundle(arguments[0])
    except U2AError as error:
        st.error("The bundle cannot be opened.")
        st.text(str(error))
        st.stop()
    names = bundle.scores_names()
    st.sidebar.text(f"Bundle: {bundle.name}")
    if not names:
        st.sidebar.info("No scores yet.")
        st.session_state["chosen"] = None
        return
    wanted = st.query_params.get("scores", "default")
    name = st.sidebar.selectbox("Scores", names, index=names.index(wanted) if wanted in names else 0)
    st.query_params["scores"] = name
    st.session_state["chosen"] = (bundle.reference, name)


def chosen_scores() -> Scores | None:
    """The scores chosen in the sidebar, after a line on how far they can be trusted; None after saying on the page why
    there are none.
    """
    chosen = st.session_state.get("chosen")
    if chosen is None:
        st.info("This bundle has no scores yet. In a terminal: u2a score BUNDLE; then reload this page.")
        return None
    path, name = chosen
    try:
        bundle = open_bundle(path)
        scores = bundle.scores(name)
        st.text(trust_told(bundle, scores.metadata))
        return scores
    except U2AError as error:
        st.error("These scores cannot be shown.")
        st.text(str(error))
        return None


def theme() -> Literal["light", "dark"]:
    """The theme the browser shows now."""
    return "dark" if st.context.theme.type == "dark" else "light"


def chart(figure: go.Figure) -> None:
    """Draw a figure as it is, with its own colours; as tall as it asks, else tall enough for its rings."""
    st.plotly_chart(figure.update_layout(height=figure.layout.height or 680), theme=None, config=PLOTLY_CONFIG)
