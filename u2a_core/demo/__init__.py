"""The embedded demo: the recipe that makes its bundle, what is measured of it, and the bundle itself (`bundle/`)."""
