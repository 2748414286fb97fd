"""Unlearn: settings, the command line, start, progress with live curves, resume, and what came of every run."""

import streamlit as st

from u2a_core.dashboard import unlearn_form as form
from u2a_core.dashboard.curation import watch
from u2a_core.dashboard.jobs import bundle_jobs, job_list
from u2a_core.dashboard.run_view import chosen_run, run_panel, runs_of, runs_overview
from u2a_core.dashboard.studio import studio
from u2a_core.dashboard.unlearn_start import NEW, chosen_view, name_of, run_of, start, what
from u2a_core.store.job_folder import LIVING

st.title("Unlearn")
st.text("Take the examples of a forget set out of the policy, and see at every check what that does to it.")
watch()
bundle = studio().bundle
runs, jobs = runs_of(bundle), bundle_jobs("unlearn")
view = chosen_view()

if view == NEW:
    left, right = st.columns([5, 3], gap="medium")
    with left:
        chosen = what()
        preset = form.preset()
        values = form.method(preset)
        values |= form.settings(form.MAIN, preset, bundle)
        with st.expander("More settings"):
            values |= form.settings(form.MORE, preset, bundle)
    with right, st.container(border=True):
        st.subheader("The run")
        name, fault = name_of(values["objective"], runs)
        start(values, chosen, name, form.fault_of(values) or fault, runs)
else:
    under_way = [run_of(job.spec.argv) or "" for job in jobs if job.spec and job.state in LIVING]
    shown = chosen_run(runs, under_way)
    if shown:
        run_panel(shown)
    if runs:
        st.subheader("All runs of this bundle")
        runs_overview(runs)
    st.subheader("Jobs")
    job_list([job for job in jobs if job.state not in LIVING], "No job has ended yet.")
