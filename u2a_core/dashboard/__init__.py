"""Parts of the pages; the only room besides pages/ and app.py that imports streamlit; no torch."""
