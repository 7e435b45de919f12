"""`longhaul web`: a page to watch and steer runs. Who may ask, what is answered, and the process that serves it. It
reads files as the other commands do and sends orders over the control socket: it must not write to an experiment, and
nothing that a run needs may depend on it. Starlette and uvicorn are imported here alone, once a page is served.
"""
