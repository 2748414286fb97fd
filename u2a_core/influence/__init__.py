"""Influence of negative examples on preference alignment: directional derivatives and estimators."""
