"""What goes wrong with a test cluster."""


class ClusterError(Exception):
    """The cluster does not do what it was told to."""


class Unavailable(ClusterError):
    """Here is no cluster, and none can be started: tests of it are skipped unless they are required."""
