"""A real Kubernetes, the harness that brings one up, and the tests that need it.

``python -m tests.cluster up`` builds the programs once (``binaries``), starts them on a network of their own
(``machine``, ``components``, ``processes``) and says where the cluster is; ``cluster`` is the Python side of that, with
what tests do to a cluster, and ``images`` brings the project's images into it. The fixtures ``cluster`` and
``namespace`` are in ``conftest.py``.
"""
