"""The verbs of the command ``modelkit``, one subject per module; ``cli`` puts them together.

Each module has ``add_verbs``. What a verb needs is imported when it runs, so that ``--help`` is quick and a container
needs only the libraries of the verbs that it uses.
"""
