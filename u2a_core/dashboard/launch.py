"""Starts Streamlit with `pages/` left to `st.navigation`.

Otherwise a fresh server that is first opened at the address of a page runs that page's bare file, without app.py.
"""

from streamlit.runtime.pages_manager import PagesManager
from streamlit.web.cli import main

if __name__ == "__main__":
    PagesManager.uses_pages_directory = False
    main(prog_name="streamlit")
