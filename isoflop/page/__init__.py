"""The page: a planning workbench in the browser, served on this machine by `isoflop serve`.

The server (`_server`) keeps sessions, answers sliders from a fit's draws and hands everything longer to worker
processes (`_jobs`, `_worker`), which read tables and fit laws. `static/` holds the page itself.
"""
